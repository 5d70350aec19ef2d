"""The critic of PPO: what an answer that stands so far will be worth, one number a place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reason_engine.training._policy import Row, States, in_passes


class Value(nn.Module):
    """A body that starts as a copy of a language model's, with a linear head that starts at zero."""

    def __init__(self, model: Any, precision: str) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.model).requires_grad_(True).train()
        self._states = States(self.body, False, precision)
        self.head = nn.Linear(model.config.hidden_size, 1).to(model.lm_head.weight.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._precision = precision

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """Before each generated token, in order of the rows, (N)."""
        device = self.head.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            states_ND = self._states(rows, device)
        return self.head(states_ND.float())[:, 0].cpu()

    def measured(self, rows: Sequence[Row], tokens: int) -> list[Tensor]:
        """Without gradient, one tensor a row, in passes of at most `tokens` padded tokens."""
        return in_passes(rows, tokens, self)
