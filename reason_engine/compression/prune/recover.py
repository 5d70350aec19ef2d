"""Recovery after pruning: the pruned model learns the unpruned one's distributions (`training.distill`).

The plain loss, −log p of what a row teaches, is taken on rows that are not learned: before pruning (L0) and at evenly
spaced checkpoints. These are the points of `reason plan prune`. Weights that pruning set to zero stay zero throughout.

No row that perplexity is measured on is learned, nor is the loss taken on one. Of a mixture both kinds are drawn from
seeds of their own. A file's rows are those that calibration drew from, less what is held out there; running text in
pieces, as there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from reason_engine.compression import CompressionConfig
from reason_engine.compression.calibration import CalibrationRows, draw_rows, tokenized
from reason_engine.compression.law import Point
from reason_engine.data.formats.rows import Conversation, Text, to_json
from reason_engine.data.mixture import Stream
from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines
from reason_engine.progress import OnProgress, staged
from reason_engine.training.common.config import Frozen
from reason_engine.training.supervised.distill import DistillConfig, SoftAnswers
from reason_engine.training.supervised.loop import supervise
from reason_engine.training.supervised.sft import Answers

HELD_SHARE = 0.1
"""Of a file's rows, at most, that the loss is taken on."""
FEWEST = 10
LEARNED_SEED, HELD_SEED = 1_000_003, 2_000_003
"""Added to the seed for the rows of a mixture that are learned, and that the loss is taken on."""


class Recover(Frozen):
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


def recover(
    config: CompressionConfig,
    options: Recover,
    teacher: Path,
    student: Path,
    calibration: CalibrationRows,
    zeros: Mapping[str, Any],
    tell: OnProgress,
) -> dict[str, Any]:
    """Train the checkpoint in the folder `student`, which was pruned from `teacher`: L0 and the losses
    [(tokens, loss)] seen on the way. `zeros`: True where a weight stays zero."""
    from reason_engine.training.common.models import load_tokenizer

    place = student / ".recovery"
    place.mkdir()
    try:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (teacher / name).is_file():
                shutil.copyfile(teacher / name, student / name)  # the student is read as a model of its own
        learned: Path | None = None
        if config.data is None:
            held: Sequence[Any] = [*islice(Stream(config.mixture, config.seed + HELD_SEED), options.held)]
        else:
            learned = place / "rows.jsonl"
            held = split_rows(config, calibration, load_tokenizer(teacher), options.held, learned)
        given = training_options(config, place, student, learned)
        given |= options.model_dump(exclude={"checkpoints", "held", "points"})
        recipe = DistillConfig(teacher=teacher, **given)
        found = _distil(recipe, options, held, zeros, tell)
        for file in ("config.json", *(path.name for path in recipe.out.glob("*.safetensors*"))):
            os.replace(recipe.out / file, student / file)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return found


def training_options(config: CompressionConfig, place: Path, model: Path, learned: Path | None) -> dict[str, Any]:
    """Of a training below `place`, which is whole or not at all, so that nothing is saved on its way."""
    files = {"out": place / "run", "model": model, "data": learned, "mixture": config.mixture}
    seed = config.seed + LEARNED_SEED
    shared = {"max_length": config.length, "seed": seed, "threads": config.threads}
    return {**files, **shared, "save_every": 1 << 60, "log_every": 10}


def _distil(
    recipe: DistillConfig, options: Recover, held: Sequence[Any], zeros: Mapping[str, Any], tell: OnProgress
) -> dict[str, Any]:
    from reason_engine.training.common.forward import body_of
    from reason_engine.training.common.models import load_model

    model, tokenizer = load_model(recipe.teacher)
    before = plain_loss(Answers(recipe, model, tokenizer), body_of(model, False), held, recipe)
    del model
    losses: list[tuple[int, float]] = []

    def watch(tokens: int, objective: Any, body: Any) -> None:
        _restore_zeros(objective.model, zeros)
        due = len(losses) + 1
        if due <= options.checkpoints and tokens * options.checkpoints >= due * options.tokens:
            loss = plain_loss(Answers(recipe, objective.model, tokenizer), body, held, recipe)
            losses.append((tokens, loss))
            objective.model.train()
            tell({"stage": "checkpoint", "done": due, "total": options.checkpoints, "loss": loss})

    listener = staged(tell, "recover", options.tokens)
    supervise(recipe, recipe.out, listener, SoftAnswers, base=recipe.model, copies=1, memory=Answers, on_step=watch)
    return {"L0": before, "losses": losses}


def plain_loss(objective: Any, body: Any, rows: Sequence[Any], config: Any) -> float:
    """Mean −log p over what the rows teach."""
    import torch

    from reason_engine.training.common.encode import micro_batches

    objective.model.eval()
    with torch.no_grad():
        items = objective.encode(rows)
        total = objective.total(items, body)
        groups = micro_batches(items, config.pass_tokens)
        return sum(objective.loss(group, body)[0].item() for group in groups) / total


def points_of(found: Mapping[str, Any], by: str, model: str, size: int, rate: float, seed: int) -> list[Point]:
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


def _usable(config: CompressionConfig, calibration: CalibrationRows, tokenizer: Any) -> Iterator[Conversation | Text]:
    held = set(map(tuple, calibration.held_out))
    for row in draw_rows(config)[0]:
        if not isinstance(row, (Conversation, Text)):
            kind = type(row).__name__.lower()
            raise SetupError(f"recover: learns from conversations or text, and {config.data} holds rows of kind {kind}")
        pieces = tokenized([row], tokenizer, config.length, 1 << 60)
        if isinstance(row, Conversation):
            if not held.intersection(map(tuple, pieces)):
                yield row
            continue
        yield from (Text(tokenizer.decode(ids)) for ids in pieces if tuple(ids) not in held)
