"""A side network: a small transformer beside a model that stays as it is. It reads what the model wrote or is given,
and what the model had expected instead.

    x_t = W_h n(h_t) + W_p n(h_{t-1}) + W_e n(e_t)                      h: states after the final norm, e: embeddings
    s_t = (log p_t, log p_t - max_v log p(v), entropy of p)             p: the model's, at t - 1
    u_t = a · n(blocks(x)_t) + w · s_t + b                              σ(u_t): this token is no mistake
    r_t = logit Π_{k ≤ t} σ(u_k) + c · n(blocks(x)_t)                   over the answer's tokens

so that an answer is right up to a place if no token before it is wrong (Uesato et al. 2022, arXiv:2211.14275, section
2.4: a step is right if all steps up to it are); c lets a later token take back what an earlier one seemed to be. n is
RMSNorm; a block is causal attention with rotary positions and a GELU layer of four times the width. Ladder side-tuning:
Sung, Cho and Bansal 2022, arXiv:2206.06522, section 3.

Departures: one rung, the last states, instead of one a layer; the state before and the token's own likelihood are read
too, since what a model expects is whole in its last layer only, where no later token of its own can look; attention is
within the answer, the token before it included. w begins with the log-likelihoods themselves: an untrained network
ranks answers by them. Shape suffixes: B rows, T tokens, H the model's width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reason_engine.engines.rewards.folders import HEAD_DIM

LEAST = -12.0
"""Log-likelihoods below count as this."""
BEGIN = ((0.5, 1.0, 0.0), 3.0)
"""w and b before training."""
CERTAIN = -1e-5
"""Most of a log-probability, that its logit be finite."""


class SideNetwork(nn.Module):
    """Values of the tokens of an answer, (B, T), from the model's states and embeddings of it, (B, T, H), and how
    likely it was; the first token is the one before the answer. `width` is a multiple of HEAD_DIM."""

    def __init__(self, hidden: int, width: int, depth: int) -> None:
        super().__init__()
        self.here = _Input(hidden, width)
        self.before = _Input(hidden, width)
        self.token = _Input(hidden, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.out = nn.Linear(width, 2, bias=False)
        self.likely = nn.Linear(len(BEGIN[0]), 1)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.likely.weight.copy_(torch.tensor([BEGIN[0]]))
            self.likely.bias.fill_(BEGIN[1])

    def forward(self, states_BTH: Tensor, tokens_BTH: Tensor, surprise_BT3: Tensor) -> Tensor:
        before_BTH = F.pad(states_BTH[:, :-1], (0, 0, 1, 0))
        x = self.here(states_BTH) + self.before(before_BTH) + self.token(tokens_BTH)
        turns = _turns(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, turns)
        own_BT, later_BT = self.out(self.norm(x)).unbind(-1)
        fine_BT = F.logsigmoid(own_BT + self.likely(surprise_BT3)[..., 0])
        all_BT = F.pad(fine_BT[:, 1:].cumsum(1), (1, 0)).clamp(max=CERTAIN)
        return all_BT - torch.log(-torch.expm1(all_BT)) + later_BT


def surprise(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """How likely each token was by the logits of the place before it, (B, T, 3); zeros for the first."""
    logps_BTV = logits_BTV[:, :-1].float().log_softmax(-1)
    own = logps_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
    entropy = -(logps_BTV.exp() * logps_BTV).sum(-1)
    said = torch.stack((own.clamp(min=LEAST), (own - logps_BTV.amax(-1)).clamp(min=LEAST), entropy), -1)
    return F.pad(said, (0, 0, 1, 0))


class _Input(nn.Module):
    """Normalised, then into the width."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden, eps=1e-6)
        self.proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_in = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm_in(x)).view(batch, length, 3, width // HEAD_DIM, HEAD_DIM)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = _turn(query, turns) @ _turn(key, turns).transpose(2, 3) / math.sqrt(HEAD_DIM)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        # On short sequences plain matrix products are faster than the fused kernel's backward pass on a CPU.
        seen = scores.masked_fill(later, float("-inf")).softmax(-1) @ value
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


def _turns(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, (T, HEAD_DIM / 2)."""
    speeds = 1000.0 ** (-torch.arange(0, HEAD_DIM, 2, device=device).float() / HEAD_DIM)
    angles = torch.outer(torch.arange(length, device=device).float(), speeds)
    return angles.cos(), angles.sin()


def _turn(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turns
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
