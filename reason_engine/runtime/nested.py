"""One strategy inside another: what the inner one may use, what it gets, and what it need not draw again.

`capable` refuses what the engine cannot do before a token is spent, for the request's own strategy and an inner one.
`inner` gives an inner strategy its place: its own verifier, and paths that were drawn before for the same prompt at the
same temperature in place of new ones (`Stock`), so that a probe is not wasted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from reason_engine.contracts import Verifier
from reason_engine.errors import CapabilityMissing
from reason_engine.runtime.run import Run
from reason_engine.runtime.sampling import Draw, Plan
from reason_engine.runtime.verify import Judged, alternatives_of, appointed
from reason_engine.types import Answer, DraftBy, Path

if TYPE_CHECKING:
    from reason_engine.runtime.context import Context

Named = tuple[str, Verifier]


class Admissible(Judged, Protocol):
    """What decides whether a strategy may run."""

    @property
    def wants(self) -> frozenset[str]: ...
    @property
    def drafter(self) -> DraftBy: ...


@dataclass
class Stock:
    """Paths of one run by how they were drawn, in the order of drawing. Every inner strategy reads from the start."""

    paths: dict[str, list[Path]] = field(default_factory=dict[str, list[Path]])
    read: dict[str, int] = field(default_factory=dict[str, int])

    def reopened(self) -> Stock:
        """The same paths for the next strategy."""
        return Stock(self.paths)

    def take(self, key: str, n: int) -> list[Path]:
        """Up to n paths that this strategy has not had yet."""
        begin = self.read.get(key, 0)
        taken = self.paths.get(key, [])[begin : begin + n]
        self.read[key] = begin + len(taken)
        return taken

    def put(self, key: str, paths: Sequence[Path]) -> None:
        """Keep what this strategy has just drawn and had."""
        kept = self.paths.setdefault(key, [])
        kept.extend(paths)
        self.read[key] = len(kept)


async def draw(run: Run, plan: Plan, read: Callable[[str], str | None], stock: Stock | None) -> list[Path]:
    """The paths of a plan, those in stock first. Raises BudgetExhausted if there is not one."""
    if stock is None:
        return await Draw(run, plan, read).run()
    key = repr((plan.prompt, plan.limit, replace(plan.sampling, seed=0)))
    taken = stock.take(key, plan.n)
    decided = bool(taken and plan.until and plan.until(list(taken)))
    if decided or len(taken) == plan.n:
        return taken
    if until := plan.until:

        def with_taken(new: list[Path]) -> bool:
            return until([*taken, *new])

        plan = replace(plan, until=with_taken)
    new = await Draw(run, replace(plan, n=plan.n - len(taken)), read).run()
    stock.put(key, new)
    return [*taken, *new]


def capable(run: Run, strategy: Admissible) -> None:
    """Raises CapabilityMissing where the engine cannot do what the strategy needs."""
    caps = run.engine.caps
    known = {"choose": caps.choose, "continuation": caps.continuation, "score": caps.score}
    known["logprobs"] = caps.logprobs > 1
    for want in sorted(strategy.wants):
        if not known[want]:
            raise CapabilityMissing(
                f"strategy {strategy.title} needs the capability {want!r}, which this engine has not; "
                "the embedded and the vllm engine have it",
                param="reasoning.strategy",
                code="strategy_not_available",
            )
    if strategy.drafter not in ("default", *caps.drafting):
        raise CapabilityMissing(
            f"this engine cannot draft by {strategy.drafter!r}; it offers: {', '.join(('default', *caps.drafting))}",
            param="reasoning.draft",
            code="strategy_not_available",
        )


def admitted(run: Run, strategy: Admissible) -> Named | None:
    """The verifier of an inner strategy that can run here. Raises RequestError kinds for what is missing."""
    capable(run, strategy)
    return appointed(run, strategy)


@asynccontextmanager
async def inner(
    ctx: Context, name: str, strategy: Admissible, stock: Stock, *, live: bool = False
) -> AsyncGenerator[Context]:
    """A span in which another strategy works, with its own verifier. One at a time: they share the run's place for it.

    `live`: its text may be shown as it is made, since nothing follows it.
    """
    run = ctx.run
    before = run.verifier_name, run.verifier, run.alternatives
    run.verifier_name, run.verifier = admitted(run, strategy) or ("", None)
    run.alternatives = alternatives_of(run.verifier) if run.verifier else None
    try:
        async with ctx.span(name) as here:
            yield replace(here, stock=stock.reopened(), live=live)
    finally:
        run.verifier_name, run.verifier, run.alternatives = before


def standby(ctx: Context, answer: Answer) -> None:
    """Keep an answer that was not accepted as what a cut run falls back on, below whatever a later try proposes."""
    if answer.path:
        ctx.run.best = (float("-inf"), answer)
