"""A Qwen3 decoder for training, compiled layer by layer: the model's own weights, half the time on a CPU.

Why not `torch.compile(model.model, dynamic=True)`: with torch 2.13 and transformers 5.19 on a CPU it trained models
that had seen the tokens they were to predict. So attention and mask are written out, and `check` compares the two.
Rows are padded on the right, hence no padding mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.nn.functional import silu

from reason_engine.errors import SetupError

TOLERANCE = 0.05  # bf16 rounds differently once operations are fused; a lost mask is off by far more


class CompiledBody(nn.Module):
    """Hidden states [B, T, D] after the final norm, as `model.model(input_ids=…).last_hidden_state`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        config, self._body = model.config, model.model
        self._shape = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self._eps = config.rms_norm_eps
        half = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        turns = torch.arange(config.max_position_embeddings).float()[:, None] / _theta(config) ** half
        self._cos, self._sin = turns.cos(), turns.sin()
        # Sizes that happen to be equal (a length and half a head) must not be taken for one and the same.
        _config.use_duck_shape = False
        self._layer = torch.compile(_layer, dynamic=True)

    def forward(self, ids_BT: Tensor) -> Tensor:
        length = ids_BT.shape[1]
        hidden_BTD = self._body.embed_tokens(ids_BT)
        later_TT = torch.ones(length, length, dtype=torch.bool, device=ids_BT.device).triu(1)
        cos, sin = (table[:length].to(ids_BT.device) for table in (self._cos, self._sin))
        for layer in self._body.layers:
            hidden_BTD = self._layer(hidden_BTD, layer, cos, sin, later_TT, self._shape, self._eps)
        return _norm(hidden_BTD, self._body.norm.weight, self._eps)

    def check(self, precision: str) -> None:
        """Compare with the model's own forward on a random batch. Raises SetupError where a compiler got it wrong."""
        ids_BT = torch.randint(
            0, self._body.config.vocab_size, (32, 40), generator=torch.Generator().manual_seed(0)
        )
        ids_BT = ids_BT.to(device := self._body.norm.weight.device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            compiled = self(
                ids_BT
            ).detach()  # gradients stay on, as in training, so that one graph serves both
            own = self._body(input_ids=ids_BT, use_cache=False).last_hidden_state.detach()
        off = ((own - compiled).norm() / own.norm()).item()
        if not off < TOLERANCE:
            raise SetupError(f"compile: compiled layers are off by {off:.1%}; set compile: false")


def _layer(
    hidden_BTD: Tensor,
    layer: Any,
    cos: Tensor,
    sin: Tensor,
    later_TT: Tensor,
    shape: tuple[int, int, int],
    eps: float,
) -> Tensor:
    (batch, length, _), (heads, groups, size) = hidden_BTD.shape, shape
    attention, mlp, each = layer.self_attn, layer.mlp, heads // groups
    normed = _norm(hidden_BTD, layer.input_layernorm.weight, eps)
    query = _norm(attention.q_proj(normed).view(batch, length, heads, size), attention.q_norm.weight, eps)
    key = _norm(attention.k_proj(normed).view(batch, length, groups, size), attention.k_norm.weight, eps)
    value = attention.v_proj(normed).view(batch, length, groups, size).transpose(1, 2)
    kind = value.dtype
    query, key = (_turn(x.transpose(1, 2), cos, sin).to(kind) for x in (query, key))
    scores = torch.matmul(query.reshape(batch, groups, each * length, size), key.transpose(2, 3))
    scores = scores.view(batch, groups, each, length, length).float() * size**-0.5
    shares = scores.masked_fill(later_TT, float("-inf")).softmax(-1).to(kind)
    seen = torch.matmul(shares.view(batch, groups, each * length, length), value)
    seen = (
        seen.view(batch, groups, each, length, size)
        .permute(0, 3, 1, 2, 4)
        .reshape(batch, length, heads * size)
    )
    hidden_BTD = hidden_BTD + attention.o_proj(seen)
    normed = _norm(hidden_BTD, layer.post_attention_layernorm.weight, eps)
    return hidden_BTD + mlp.down_proj(silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def _theta(config: Any) -> float:
    return float(config.rope_parameters["rope_theta"])
