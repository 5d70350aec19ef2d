"""Supervised fine-tuning, from scratch or from a checkpoint: next-token loss on the answer's tokens only.

Matrices learn by Muon (momentum orthogonalised by Newton-Schulz; Jordan et al. 2024), everything else by AdamW. Both
rates follow warm-up and cosine over *tokens*, so that the schedule does not depend on the machine. Output and down
projections start at zero, hence each layer as the identity.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from reason_engine.data.mixture import Part
from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training.callbacks import Log, Tell, silent
from reason_engine.training.config import Frozen


class Architecture(Frozen):
    """A new Qwen3 model."""

    width: int = Field(256, ge=32, multiple_of=32)
    layers: int = Field(4, ge=1)
    intermediate: int = Field(640, ge=32, multiple_of=32)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    head_dim: int = Field(64, ge=8, multiple_of=8)
    context: int = Field(1024, ge=32)
    rope_theta: float = 1e4
    vocabulary: int = Field(768, ge=300, le=65536)
    tokenizer_examples: int = Field(20_000, ge=10)

    @model_validator(mode="after")
    def divides(self) -> Architecture:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class SftConfig(Frozen):
    """One of `model` (a checkpoint folder) and `architecture` (a new one); one of `data` (JSON lines) and `mixture`."""

    out: Path
    model: Path | None = None
    architecture: Architecture | None = None
    data: Path | None = None
    mixture: tuple[Part, ...] = ()
    tokens: int = Field(ge=1, description="Tokens to train on, prompts included, padding not")
    batch: int = Field(160, ge=1, description="Examples an optimiser step")
    micro_tokens: int = Field(4096, ge=16, description="Padded tokens a forward pass")
    max_length: int = Field(1024, ge=16)
    muon_rate: float = Field(0.02, gt=0)
    adamw_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.02, ge=0, lt=1)
    final: float = Field(0.01, ge=0, le=1, description="Share of the rate left at the end")
    clip: float = Field(1.0, gt=0)
    freeze: tuple[str, ...] = Field(
        (), description="Regular expressions over parameter names that stay as they are"
    )
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    threads: int | None = Field(None, ge=1)
    seed: int = 0
    save_every: int = Field(1_000_000, ge=1, description="Tokens between checkpoints")
    keep_every: int | None = Field(
        None, ge=1, description="Tokens between checkpoints that are kept as models"
    )
    log_every: int = Field(20, ge=1, description="Steps between log lines")

    @field_validator("freeze")
    @classmethod
    def patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def one_of_each(self) -> SftConfig:
        if (self.model is None) == (self.architecture is None):
            raise ValueError("give either model or architecture")
        if (self.data is None) == (not self.mixture):
            raise ValueError("give either data or mixture")
        return self


def rate(config: SftConfig, tokens: int) -> float:
    """Share of the full learning rate after `tokens`: linear warm-up, then cosine down to `final`."""
    done = min(1.0, tokens / config.tokens)
    if done < config.warmup:
        return max(done, 1e-3) / config.warmup
    turn = (done - config.warmup) / (1 - config.warmup)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * turn))


@trainers.register("sft")
class Sft:
    """Supervised fine-tuning on conversations."""

    config: ClassVar[type[SftConfig]] = SftConfig
    summary: ClassVar[str] = "supervised fine-tuning, from scratch or from a checkpoint"

    def train(self, config: SftConfig, out: Path, tell: Tell = silent) -> dict[str, Any]:
        """Train until `config.tokens`; goes on from the checkpoint in `out` where there is one. The last metrics."""
        import torch

        from reason_engine.training._checkpoint import Checkpoint
        from reason_engine.training._encode import Encoder, micro_batches
        from reason_engine.training._models import load_or_build, save_model
        from reason_engine.training._source import source_of

        torch.set_num_threads(config.threads or torch.get_num_threads())
        torch.manual_seed(config.seed)
        model, tokenizer = load_or_build(config)
        trained = freeze(model, config.freeze)
        optimisers = make_optimisers(config, trained)
        source, encoder = source_of(config), Encoder(tokenizer, config.max_length)
        checkpoint = Checkpoint(out / "checkpoint", config)
        step, tokens = checkpoint.restore(model, optimisers, source)
        body = body_of(model, config.compile, config.precision)
        model.train()
        log = Log(out / "log.jsonl", config.tokens, tokens, tell)
        metrics: dict[str, Any] = {}
        while tokens < config.tokens:
            batch = encoder.encode([next(source) for _ in range(config.batch)])
            count = sum(len(one.ids) for one in batch)
            share = rate(config, tokens)
            for optimiser, full in zip(optimisers, (config.muon_rate, config.adamw_rate), strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = full * share
            total = sum(sum(one.weights) for one in batch)
            loss = 0.0
            for group in micro_batches(batch, config.micro_tokens):
                part = answer_loss(body, model.lm_head, group, config.precision) / total
                part.backward()
                loss += part.item()
            norm = torch.nn.utils.clip_grad_norm_([p for _, p in trained], config.clip).item()
            if not math.isfinite(loss + norm):
                raise SetupError(f"step {step + 1}: the loss is {loss}, its gradient {norm}; lower the rates")
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            before, step, tokens = tokens, step + 1, tokens + count
            metrics = {"step": step, "tokens": tokens, "loss": loss, "norm": norm, "rate": share}
            if step % config.log_every == 0 or tokens >= config.tokens:
                log.write(metrics)
            if tokens // config.save_every > before // config.save_every and tokens < config.tokens:
                checkpoint.save(model, optimisers, source, step, tokens)
            if config.keep_every and tokens // config.keep_every > before // config.keep_every:
                save_model(model, tokenizer, out / f"at-{tokens // config.keep_every * config.keep_every}")
        save_model(model, tokenizer, out)
        checkpoint.remove()
        return metrics


def body_of(model: Any, compiled: bool, precision: str = "fp32") -> Any:
    """Token ids [B, T] to hidden states [B, T, D]. Raises SetupError where the compiled one does not know the model."""
    if not compiled:
        return lambda ids_BT: model.model(input_ids=ids_BT, use_cache=False).last_hidden_state
    if model.config.model_type != "qwen3":
        raise SetupError(f"compile: written for qwen3 models, this is {model.config.model_type}")
    from reason_engine.training._compiled import CompiledBody

    body = CompiledBody(model)
    body.check(precision)
    return body


def answer_loss(body: Any, head: Any, group: list[Any], precision: str) -> Any:
    """Weighted sum of -log p over answer tokens; logits are made at those places only."""
    import torch
    from torch.nn.functional import cross_entropy

    from reason_engine.training._encode import padded

    length = padded(max(len(one.ids) for one in group))
    ids_BT = torch.tensor([one.ids + [0] * (length - len(one.ids)) for one in group])
    weights_BT = torch.tensor([one.weights + [0.0] * (length - len(one.weights)) for one in group])
    weights_BT[:, 0] = 0.0
    learned_BT = weights_BT[:, 1:] > 0
    device = head.weight.device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        hidden_BTD = body(ids_BT.to(device))
        logits_NV = head(hidden_BTD[:, :-1][learned_BT.to(device)])
    losses_N = cross_entropy(logits_NV.float(), ids_BT[:, 1:][learned_BT].to(device), reduction="none")
    return (losses_N * weights_BT[:, 1:][learned_BT].to(device)).sum()


def freeze(model: Any, patterns: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Switch off the parameters whose names match; the named ones still trained. Raises SetupError on no match."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name, _ in model.named_parameters()):
            raise SetupError(f"freeze: no parameter matches {pattern!r}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(re.search(pattern, name) for pattern in patterns))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise SetupError("freeze: no parameter is left to train")
    return trained


def make_optimisers(config: SftConfig, trained: list[tuple[str, Any]]) -> list[Any]:
    """Muon on the layers' matrices and AdamW on the rest, in this order; one that would be empty gets a dummy."""
    import torch
    from torch import nn, optim

    def is_matrix(name: str, parameter: Any) -> bool:
        return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name

    matrices = [p for name, p in trained if is_matrix(name, p)] or [nn.Parameter(torch.zeros(1, 1))]
    others = [p for name, p in trained if not is_matrix(name, p)] or [nn.Parameter(torch.zeros(1))]
    return [
        optim.Muon(matrices, lr=config.muon_rate, weight_decay=config.weight_decay, momentum=0.95),
        optim.AdamW(others, lr=config.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
