"""The run of every supervised method: preflight, rows to batches, gradients, steps, checkpoints, the model at the end.

A method is an `Objective`: how rows are encoded, what a batch's losses are divided by, and the loss of a group. A run
goes on from its own checkpoint as if it had not been killed. A loss that is not a number ends it before the weights
are touched, with a checkpoint of the step before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Labelled, Preference, Text
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training.common.distributed import Distributed, Gathered, Loss, Weights, check_distributed
from reason_engine.training.common.encode import Encoder, FileSource, micro_batches
from reason_engine.training.common.models import load_or_build, save_model
from reason_engine.training.common.preflight import preflight
from reason_engine.training.common.recipe import Supervised
from reason_engine.training.common.run_folder import Checkpoint, Log
from reason_engine.training.memory import fit, keep_fit, model_size, new_size, supervised_need
from reason_engine.training.text.lengths import told_lengths

GPU = 16
"""On a GPU a forward pass takes this many times `micro_tokens`."""


class Objective(Protocol):
    """Made from (config, model in its first state, tokenizer). `model` is what is trained."""

    model: Any

    def encode(self, rows: Sequence[Any]) -> list[Any]: ...
    def total(self, batch: Sequence[Any], body: Any) -> float:
        """What the sum of the losses of a batch is divided by; called once a batch, before any `loss`."""
        ...

    def loss(self, group: Sequence[Any], body: Any) -> tuple[Any, Mapping[str, float]]:
        """The sum of losses of some of the batch, and sums over its items that are reported as means."""
        ...


MakeObjective = Callable[[Any, Any, Any], Objective]


def supervise(
    config: Supervised,
    out: Path,
    tell: OnProgress,
    make: MakeObjective,
    *,
    base: Path | None,
    copies: int = 0,
    memory: MakeObjective | None = None,
    save: Callable[[Any, Any, Path], None] = save_model,
    tokenizer_from: Path | None = None,
    make_batch: Callable[[Any, Sequence[Any], Any], list[Any]] | None = None,
    on_step: Callable[[int, Any, Any], None] | None = None,
) -> dict[str, Any]:
    """Train until `config.tokens`. The last metrics.

    `memory`: the objective by which old rows are weighed for ewc, where it is another; `save` writes what is trained;
    `tokenizer_from`: whose tokenizer a new model takes; `make_batch`: how a training batch is made of rows and of the
    adapter, where not by `encode`; `on_step` is called after each step with the tokens so far, the objective, the body.
    """
    source, found = preflight(config, base, copies)
    check_distributed(config, copies, sampled=make_batch is not None)
    processes = Distributed()
    tell = tell if processes.first else silent
    for line in found:
        tell({"note": line})
    import torch

    from reason_engine.training.common.adapters import Adapted
    from reason_engine.training.common.consolidation import Consolidation
    from reason_engine.training.common.forward import body_of, fast_precision, work_out_again
    from reason_engine.training.common.optimisers import freeze, make_optimisers, set_rates

    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    size = model_size(base) if base is not None else new_size(dict(config)["architecture"])
    given, need = config, supervised_need(config, size, copies)
    config = config.model_copy(
        update={"precision": fast_precision(config.precision), "micro_tokens": fit(config, need)}
    )
    tell({"note": f"precision: {config.precision}"})
    model, tokenizer = load_or_build(config, tokenizer_from)
    for line in told_rows(config, source, tokenizer):
        tell({"note": line})
    objective = make(config, model, tokenizer)
    adapted = Adapted(objective.model, config.peft, base) if config.peft and base else None
    body = adapted.body(config.precision) if adapted else body_of(objective.model, False, config.precision)
    loss_of = processes.shard(objective, body)
    trained = freeze(adapted.module if adapted else objective.model, config.freeze)
    learning, parameters = sum(p.numel() for _, p in trained), [p for _, p in trained]
    tell({"note": f"{learning:,} parameters are trained"})
    optimisers = make_optimisers(config, trained)
    consolidation = None
    if config.old is not None:
        old = objective if memory is None else memory(config, model, tokenizer)
        rows = read_rows(config.old, *(config.kinds if memory is None else Supervised.kinds))
        items = old.encode(list(islice(rows, config.fisher_rows)))
        losses = (old.loss([item], body)[0] for item in items if old.total([item], body))
        consolidation = Consolidation(trained, config.ewc, losses, adapted.factors() if adapted else ())
    weights = Weights(trained, processes)
    states = [Gathered(optimiser, processes) for optimiser in optimisers]
    checkpoint = Checkpoint(out, given, weights, states, source)
    if isinstance(source, FileSource) and config.epochs:
        epoch = sum(len(one.ids) for one in objective.encode(source.rows))
        config = config.model_copy(update={"tokens": math.ceil(config.epochs * epoch)})
    processes.wait()
    step, tokens = checkpoint.restore()
    keep_fit(given, config.pass_tokens)
    if config.compile:
        body = body_of(objective.model, True, config.precision)
        loss_of = processes.shard(objective, body)
    on_gpu = next(objective.model.parameters()).device.type == "cuda"
    micro = config.pass_tokens * (GPU if on_gpu and given.micro_tokens != "auto" else 1)
    if config.checkpointing:
        work_out_again(objective.model)
    log = Log(out, config, config.tokens, tokens, tell)
    if config.held_out is not None and not step:
        log.judge(0, 0, _evaluate(objective, config.held_out, config, body, loss_of))
    objective.model.train()
    metrics: dict[str, Any] = {}

    def keep(folder: Path, *, last: bool) -> None:
        """Write what is trained as it stands, the adapter alone on the way."""
        state = weights.state_dict() if processes.sharded else {}
        if processes.first:
            kept, its = (objective, adapted) if not processes.sharded else rebuild(state)
            if its is None:
                save(kept.model, tokenizer, folder)
            elif last:
                its.finish(tokenizer, folder, save)
            else:
                its.save(folder)
        processes.wait()

    def rebuild(state: dict[str, Any]) -> tuple[Objective, Adapted | None]:
        """The same, whole and on the CPU, with these weights."""
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            fresh = make(config, *load_or_build(config, tokenizer_from))
            its = Adapted(fresh.model, config.peft, base) if config.peft and base else None
        Weights(freeze(its.module if its else fresh.model, config.freeze), processes).load_state_dict(state)
        return fresh, its

    while tokens < config.tokens:
        position = source.state()
        rows = [next(source) for _ in range(config.batch)]
        batch = objective.encode(rows) if make_batch is None else make_batch(objective, rows, adapted)
        share = config.rate_at(tokens)
        set_rates(config, optimisers, share)
        total = objective.total(batch, body)
        loss, sums = 0.0, dict[str, float]()
        for group, counts in processes.share(batch, micro):
            part, parts = loss_of(group)
            part = part / total
            processes.backward(part, counts)
            if counts:
                loss += part.item()
                _add(sums, parts)
        loss, joined = processes.join(parameters, loss, sums)
        penalty = {"ewc": consolidation.add_gradients()} if consolidation else {}
        norm = float(processes.whole(torch.nn.utils.clip_grad_norm_(parameters, config.clip)))
        if not math.isfinite(loss + norm):
            checkpoint.save(step, tokens, position)
            raise SetupError(
                f"step {step + 1}: the loss is {loss}, its gradient {norm}; the state before it is kept in "
                f"{out / 'checkpoint'}: run again with lower rates or clip to go on from there"
            )
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        before, step, tokens = tokens, step + 1, tokens + sum(len(one.ids) for one in batch)
        if on_step is not None:
            on_step(tokens, objective, body)
        means = {name: value / len(batch) for name, value in joined.items()}
        metrics = {"step": step, "tokens": tokens, "loss": loss, "norm": norm, "rate": share} | means | penalty
        if step % config.log_every == 0 or tokens >= config.tokens:
            metrics |= log.write(metrics)
        else:
            log.peek(metrics)
        if tokens // config.save_every > before // config.save_every and tokens < config.tokens:
            checkpoint.save(step, tokens)
        if config.keep_every and tokens // config.keep_every > before // config.keep_every:
            keep(out / f"at-{tokens // config.keep_every * config.keep_every}", last=False)
    metrics["trained"] = learning
    if config.held_out is not None:
        metrics["held_out"] = _evaluate(objective, config.held_out, config, body, loss_of)
        log.judge(step, tokens, metrics["held_out"])
        tell({"note": "held out: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics["held_out"].items())})
    keep(out, last=True)
    if processes.first:
        if base is not None and ModelFolder(out).is_checkpoint:
            ModelFolder(out).carry_profile(ModelFolder(base))
        checkpoint.remove()
    log.close()
    return metrics


def told_rows(config: Supervised, source: Any, tokenizer: Any) -> list[str]:
    """What the model's template and tokens make of a file's rows. Raises SetupError where they cannot be learned."""
    if not isinstance(source, FileSource) or not set(config.kinds) & {Conversation, Preference, Labelled}:
        return []
    encoder = Encoder(tokenizer, config.max_length)
    if all(isinstance(row, Text) for row in source.rows):
        return []
    quirks = [f"template: {line}" for line in encoder.marks.quirks]
    return quirks + told_lengths(source.rows, encoder, config.seed)


def _add(sums: dict[str, float], parts: Mapping[str, float]) -> None:
    for name, value in parts.items():
        sums[name] = sums.get(name, 0.0) + value


def _evaluate(objective: Objective, file: Path, config: Supervised, body: Any, loss_of: Loss) -> dict[str, float]:
    """Loss and means over the rows of a file, nothing learned."""
    import torch

    objective.model.eval()
    with torch.no_grad():
        items = objective.encode(list(read_rows(file, *config.kinds)))
        total, sums = objective.total(items, body), dict[str, float]()
        for group in micro_batches(items, config.pass_tokens):
            loss, parts = loss_of(group)
            _add(sums, {"loss": loss.item() * len(items) / total, **parts})
    return {name: value / len(items) for name, value in sums.items()}
