"""Forward passes over groups of rows: the hidden states, the answer's log-probabilities, the states at some places.

Rows are packed where the model can (`packing`), else padded on the right, where a causal model never looks, so that no
mask is needed. Shape suffixes: B rows, T places, D hidden size, N places that are read, V vocabulary.

`CompiledBody` is a Qwen3 decoder compiled layer by layer: the model's own weights, half the time on a CPU. Why not
`torch.compile(model.model, dynamic=True)`: with torch 2.13 and transformers 5.19 on a CPU it trained models that had
seen the tokens they were to predict. So attention and mask are written out, and `check` compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.nn.functional import silu

from reason_engine.errors import SetupError
from reason_engine.training.common.encode import Encoded
from reason_engine.training.kernels.logprobs import head_logits, token_logprobs
from reason_engine.training.kernels.packing import Body, PackedBody

TOLERANCE = 0.05  # bf16 rounds differently once operations are fused; a lost mask is off by far more


def body_of(model: Any, compiled: bool, precision: str = "fp32") -> Body:
    """The model's `Body`. Raises SetupError where the compiled one does not know the model."""
    if not compiled:
        return PackedBody(model, precision)
    if model.config.model_type != "qwen3":
        raise SetupError(f"compile: written for qwen3 models, this is {model.config.model_type}")
    body = CompiledBody(model)
    body.check(precision)
    return Body(body)


def work_out_again(model: Any) -> None:
    """Let each layer keep its input alone for the way back. That needs training mode, in which nothing shall be dropped
    out. Raises SetupError where the model's layers cannot."""
    if not model.supports_gradient_checkpointing:
        raise SetupError(f"checkpointing: {type(model).__name__} has no layers that can; set checkpointing: false")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def fast_precision(asked: str) -> str:
    """`auto` is bf16 where this machine computes in it; elsewhere bf16 is emulated, at a twentieth of fp32's speed."""
    if asked != "auto":
        return asked
    # torch reports it here only
    cpu = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if torch.cuda.is_available() or cpu else "fp32"


def answer_loss(body: Body, head: Any, group: Sequence[Encoded], precision: str) -> Any:
    """Weighted sum of -log p over answer tokens; logits are made at those places only, in chunks."""
    logps_N, weights_N, _ = answer_token_logps(body, head, group, precision)
    return -(logps_N * weights_N).sum()


def answer_logps(body: Body, head: Any, group: Sequence[Encoded], precision: str) -> Any:
    """Sum of log p over the answer's tokens, one a row, [B]."""
    logps_N, _, rows_N = answer_token_logps(body, head, group, precision)
    return torch.zeros(len(group), device=logps_N.device).index_add(0, rows_N, logps_N)


def answer_token_logps(body: Body, head: Any, group: Sequence[Encoded], precision: str) -> tuple[Any, Any, Any]:
    """Log p, weights and rows of the tokens with a weight, [N]."""
    states_ND, targets_N, weights_N, rows_N = answer_states(body, group, precision, head.weight.device)
    return token_logprobs(head, states_ND, targets_N, precision)[0], weights_N, rows_N


def answer_states(body: Body, group: Sequence[Encoded], precision: str, device: Any) -> tuple[Any, ...]:
    """At the places that predict a token with a weight: hidden states [N, D], targets, weights, rows [N]."""
    at, targets, weights, rows, start = list[int](), list[int](), list[float](), list[int](), 0
    for row, one in enumerate(group):
        for place in range(1, len(one.ids)):
            if one.weights[place] > 0:
                at.append(start + place - 1)
                targets.append(one.ids[place])
                weights.append(one.weights[place])
                rows.append(row)
        start += len(one.ids)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        states_ND = body.rows([one.ids for one in group], device).index_select(0, torch.tensor(at, device=device))
    return states_ND, *(torch.tensor(column, device=device) for column in (targets, weights, rows))


def place_values(body: Body, score: Any, rows: Sequence[tuple[list[int], Sequence[int]]], precision: str) -> Any:
    """The head's values at each row's places, one after the other, [N]. A row is (ids, places)."""
    return score(place_states(body, rows, precision, next(score.parameters()).device).float())[:, 0]


def place_states(body: Body, rows: Sequence[tuple[list[int], Sequence[int]]], precision: str, device: Any) -> Any:
    """Hidden states at each row's places, one after the other, [N, D]."""
    at, start = list[int](), 0
    for ids, places in rows:
        at += [start + place for place in places]
        start += len(ids)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        return body.rows([ids for ids, _ in rows], device).index_select(0, torch.tensor(at, device=device))


class Reference:
    """A frozen model: π_ref. `shares`: over the weights of the model itself, which stay (an adapter is trained)."""

    def __init__(self, model: Any, *, shares: bool = False) -> None:
        frozen = (shared(model) if shares else deepcopy(model)).eval().requires_grad_(False)
        self._body, self._head = body_of(frozen, False), frozen.get_output_embeddings()

    @torch.no_grad()
    def logps(self, rows: Sequence[Encoded], precision: str) -> Any:
        """Sum of log p over each row's answer, [B]."""
        return answer_logps(self._body, self._head, rows, precision)

    @torch.no_grad()
    def states(self, rows: Sequence[Encoded], precision: str) -> Any:
        """At the places that predict an answer's token, [N, D]."""
        return answer_states(self._body, rows, precision, self._head.weight.device)[0]

    @torch.no_grad()
    def logits(self, states_CD: Tensor, precision: str) -> Any:
        """By some of these states, [C, V]."""
        return head_logits(self._head, states_CD, precision)


def shared(model: Any) -> Any:
    """The same modules over the same weights: what is hung onto one of the two is not in the other."""
    return deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


class CompiledBody(nn.Module):
    """Hidden states [B, T, D] after the final norm, as `model.model(input_ids=…).last_hidden_state`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        config, self._body = model.config, model.model
        self._shape = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self._eps = config.rms_norm_eps
        half = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        places = torch.arange(config.max_position_embeddings).float()[:, None]
        turns = places / float(config.rope_parameters["rope_theta"]) ** half
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
        seeded, vocabulary = torch.Generator().manual_seed(0), self._body.config.vocab_size
        device = self._body.norm.weight.device
        ids_BT = torch.randint(0, vocabulary, (32, 40), generator=seeded).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            compiled = self(ids_BT).detach()  # gradients stay on, as in training: one graph serves both
            own = self._body(input_ids=ids_BT, use_cache=False).last_hidden_state.detach()
        off = ((own - compiled).norm() / own.norm()).item()
        if not off < TOLERANCE:
            raise SetupError(f"compile: compiled layers are off by {off:.1%}; set compile: false")


def _layer(
    hidden_BTD: Tensor, layer: Any, cos: Tensor, sin: Tensor, later_TT: Tensor, shape: tuple[int, int, int], eps: float
) -> Tensor:
    (batch, length, _), (heads, groups, size) = hidden_BTD.shape, shape
    attention, mlp, each = layer.self_attn, layer.mlp, heads // groups
    normed = _norm(hidden_BTD, layer.input_layernorm.weight, eps)
    query = _norm(attention.q_proj(normed).view(batch, length, heads, size), attention.q_norm.weight, eps)
    key = _norm(attention.k_proj(normed).view(batch, length, groups, size), attention.k_norm.weight, eps)
    value = attention.v_proj(normed).view(batch, length, groups, size).transpose(1, 2)
    kind = value.dtype
    query, key = (_rotate(x.transpose(1, 2), cos, sin).to(kind) for x in (query, key))
    scores = torch.matmul(query.reshape(batch, groups, each * length, size), key.transpose(2, 3))
    scores = scores.view(batch, groups, each, length, length).float() * size**-0.5
    shares = scores.masked_fill(later_TT, float("-inf")).softmax(-1).to(kind)
    mixed = torch.matmul(shares.view(batch, groups, each * length, length), value)
    mixed = mixed.view(batch, groups, each, length, size).permute(0, 3, 1, 2, 4)
    hidden_BTD = hidden_BTD + attention.o_proj(mixed.reshape(batch, length, heads * size))
    normed = _norm(hidden_BTD, layer.post_attention_layernorm.weight, eps)
    return hidden_BTD + mlp.down_proj(silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
