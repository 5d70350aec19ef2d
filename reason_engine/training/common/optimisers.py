"""Which weights learn, and by what: Muon (momentum orthogonalised by Newton-Schulz; Jordan et al. 2024) or AdamW."""

from __future__ import annotations

import re
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.training.supervised.recipe import Supervised

Named = list[tuple[str, Any]]


def freeze(model: Any, patterns: tuple[str, ...]) -> Named:
    """Switch off the parameters whose names match; the named ones still trained. Raises SetupError on no match."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name, _ in model.named_parameters()):
            raise SetupError(f"freeze: no parameter matches {pattern!r}")
    for name, parameter in model.named_parameters():
        if any(re.search(pattern, name) for pattern in patterns):
            parameter.requires_grad_(False)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise SetupError("freeze: no parameter is left to train")
    return trained


def make_optimisers(config: Supervised, trained: Named) -> list[Any]:
    """Muon on the layers' matrices and AdamW on the rest, in this order; one that would be empty gets a dummy.

    `optimiser: adamw` is AdamW on everything, with its decay on matrices only.
    """
    import torch
    from torch import nn, optim

    def is_matrix(name: str, parameter: Any) -> bool:
        return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name

    matrices = [p for name, p in trained if is_matrix(name, p)] or [nn.Parameter(torch.zeros(1, 1))]
    others = [p for name, p in trained if not is_matrix(name, p)] or [nn.Parameter(torch.zeros(1))]
    rest = optim.AdamW(others, lr=config.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0)
    if config.optimiser == "adamw":
        decay = config.weight_decay
        return [optim.AdamW(matrices, lr=config.adamw_rate, betas=(0.9, 0.95), weight_decay=decay), rest]
    kind = optim.Muon
    if config.precision == "fp32":
        from reason_engine.training.common.muon import Muon32 as kind
    return [kind(matrices, lr=config.muon_rate, weight_decay=config.weight_decay, momentum=0.95), rest]


def set_rates(config: Supervised, optimisers: list[Any], share: float) -> None:
    """The full rates times `share`."""
    first = config.muon_rate if config.optimiser == "muon" else config.adamw_rate
    for optimiser, full in zip(optimisers, (first, config.adamw_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = full * share
