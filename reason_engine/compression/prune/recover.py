"""Recovery after pruning: the pruned model learns the unpruned one's distributions (`training.distill`).

The plain loss, −log p of what a row teaches, is taken on rows that are not learned: before pruning (L0) and at evenly
spaced checkpoints. These are the points of `reason plan prune`. Weights that pruning set to zero stay zero throughout.

No row that perplexity is measured on is learned, nor is the loss taken on one. Of a mixture both kinds are drawn from
seeds of their own. A file's rows are those that calibration drew from, less what is held out there; running text in
pieces, as there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from reason_engine.compression import CompressionConfig
from reason_engine.compression.calibration import CalibrationRows, draw_rows, tokenized
from reason_engine.compression.law import Point
from reason_engine.data import Example
from reason_engine.data.formats.rows import Conversation, Text, to_json
from reason_engine.data.mixture import Part, Stream
from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines
from reason_engine.progress import OnProgress, staged
from reason_engine.training.common.config import Frozen

HELD_SHARE = 0.1
"""Of a file's rows, at most, that the loss is taken on."""
FEWEST = 10


class RecoverConfig(Frozen):
    """Rates as in `reason train distill`. `points`: none: `points.jsonl` beside the result."""

    tokens: int = Field(ge=1, description="Tokens to recover on")
    checkpoints: int = Field(20, ge=0, description="At which the loss is taken")
    held: int = Field(256, ge=1, description="Rows to take the loss on")
    points: Path | None = None
    batch: int = Field(32, ge=1)
    micro_tokens: int = Field(2048, ge=16)
    alpha: float = Field(0.9, ge=0, le=1, description="Share of the unpruned model's word in the loss")
    temperature: float = Field(2.0, gt=0, le=100)
    optimiser: Literal["muon", "adamw"] = "muon"
    muon_rate: float = Field(0.01, gt=0)
    adamw_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.02, ge=0, lt=1)
    final: float = Field(0.01, ge=0, le=1, description="Share of the rate left at the end; 1: constant")
    precision: Literal["auto", "bf16", "fp32"] = "auto"


@dataclass(frozen=True, slots=True)
class Recovery:
    """`student` learns from `teacher`, the model before pruning: rows of the file `learned`, or drawn from a mixture by
    the seed. `held`: the rows to take the loss on."""

    student: Path
    teacher: Path
    learned: Path | None
    mixture: tuple[Part, ...]
    held: Sequence[Any]
    length: int
    seed: int
    threads: int | None


def recover(
    recovery: Recovery, options: RecoverConfig, zeros: Mapping[str, Any], out: Path, tell: OnProgress
) -> dict[str, Any]:
    """Train into `out`. L0 and the losses [(tokens, loss)] seen on the way. `zeros`: True where a weight stays zero."""
    from reason_engine.training.common.forward import body_of
    from reason_engine.training.common.models import load_model
    from reason_engine.training.supervised.distill import DistillConfig, SoftAnswers
    from reason_engine.training.supervised.loop import supervise
    from reason_engine.training.supervised.sft import Answers

    config = DistillConfig(
        out=out,
        model=recovery.student,
        teacher=recovery.teacher,
        data=recovery.learned,
        mixture=recovery.mixture,
        max_length=recovery.length,
        seed=recovery.seed,
        threads=recovery.threads,
        save_every=1 << 60,  # a recovery is whole or not at all
        log_every=10,
        **options.model_dump(exclude={"checkpoints", "held", "points"}),
    )
    model, tokenizer = load_model(recovery.teacher)
    before = plain_loss(Answers(config, model, tokenizer), body_of(model, False), recovery.held, config)
    del model
    seen: list[tuple[int, float]] = []

    def watch(tokens: int, objective: Any, body: Any) -> None:
        _restore_zeros(objective.model, zeros)
        due = len(seen) + 1
        if due <= options.checkpoints and tokens * options.checkpoints >= due * options.tokens:
            loss = plain_loss(Answers(config, objective.model, tokenizer), body, recovery.held, config)
            seen.append((tokens, loss))
            objective.model.train()
            tell({"stage": "checkpoint", "done": due, "total": options.checkpoints, "loss": loss})

    listener = staged(tell, "recover", options.tokens)
    supervise(
        config, out, listener, SoftAnswers, base=recovery.student, copies=1, memory=Answers, watch=watch
    )
    return {"L0": before, "losses": seen}


def plain_loss(objective: Any, body: Any, rows: Sequence[Any], config: Any) -> float:
    """Mean −log p over what the rows teach."""
    import torch

    from reason_engine.training.common.encode import micro_batches

    objective.model.eval()
    with torch.no_grad():
        items = objective.encode(rows)
        total = objective.total(items, body)
        groups = micro_batches(items, config.micro_tokens)
        return sum(objective.loss(group, body)[0].item() for group in groups) / total


def points_of(
    found: Mapping[str, Any], by: str, model: str, size: int, rate: float, seed: int
) -> list[Point]:
    """The run's points; a run's name tells it from others like it by what it saw."""
    digest = hashlib.sha256(repr((found, seed)).encode()).hexdigest()[:6]
    name = f"{model} {by} {rate:.2f} {digest}"
    return [Point(name, by, size, rate, found["L0"], tokens, loss) for tokens, loss in found["losses"]]


def _restore_zeros(model: Any, zeros: Mapping[str, Any]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in zeros:
                parameter.masked_fill_(zeros[name], 0.0)


def held_rows(config: CompressionConfig, count: int) -> list[Example]:
    """Of a mixture: rows to take the loss on."""
    return list(islice(Stream(config.mixture, held_seed(config)), count))


def learned_seed(config: CompressionConfig) -> int:
    """Of the mixture that is learned."""
    return config.seed + 1_000_003


def held_seed(config: CompressionConfig) -> int:
    """Of the mixture's rows that the loss is taken on."""
    return config.seed + 2_000_003


def split_rows(
    config: CompressionConfig, calibration: CalibrationRows, tokenizer: Any, count: int, learned: Path
) -> list[Conversation | Text]:
    """Of a file: write what is learned, return what the loss is taken on. Raises SetupError on rows of other kinds and
    on too few."""
    found = list(_usable(config, calibration, tokenizer))
    held = min(count, int(HELD_SHARE * len(found)))
    if len(found) < FEWEST or not held:
        raise SetupError(f"recover: {config.data} has {len(found)} rows to learn from, at least {FEWEST}")
    JsonLines(learned).rewrite(map(to_json, found[held:]))
    return found[:held]


def _usable(
    config: CompressionConfig, calibration: CalibrationRows, tokenizer: Any
) -> Iterator[Conversation | Text]:
    held = set(map(tuple, calibration.held_out))
    for row in draw_rows(config)[0]:
        if not isinstance(row, (Conversation, Text)):
            kind = type(row).__name__.lower()
            raise SetupError(
                f"recover: learns from conversations or text, and {config.data} holds rows of kind {kind}"
            )
        pieces = tokenized([row], tokenizer, config.length, 1 << 60)
        if isinstance(row, Conversation):
            if not held.intersection(map(tuple, pieces)):
                yield row
            continue
        yield from (Text(tokenizer.decode(ids)) for ids in pieces if tuple(ids) not in held)
