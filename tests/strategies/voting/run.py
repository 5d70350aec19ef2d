"""A context over a scripted engine, without a strategy, and paths as they come out of it."""

from __future__ import annotations

from typing import Any

from reason_engine.answers import AnswerSpec, Equality
from reason_engine.contracts import CodeSandbox, Powers
from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Profile
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.run import Run
from reason_engine.runtime.solve import ignore
from reason_engine.runtime.trace import Opened
from reason_engine.types import Limits, Path, Problem, Sampling


def context(
    kind: str = "number",
    engine: Scripted | None = None,
    *,
    problem: Problem | None = None,
    code: CodeSandbox | None = None,
    limits: Limits | None = None,
    **spec: Any,
) -> Context:
    """Of a question that wants this kind of answer."""
    made = engine or Scripted()
    run = Run(
        "run", made, problem or Problem("?"), Profile(), Budget(limits or Limits()), Sampling(max_tokens=0), "test", 0,
        ignore, Equality(), PromptCache(made), spec=AnswerSpec(kind, **spec), powers=Powers(code),  # pyright: ignore
    )  # fmt: skip
    return Context(run, run.open(Opened(0, None, "test")))


def path(node: int, answer: str | None = None, text: str = "", **fields: Any) -> Path:
    """One that ended, with a strong answer where it has one."""
    known = {"strength": "strong"} if answer is not None else {}
    return Path(
        node, "", text or (f"Answer: {answer}" if answer else "hard to say"), answer=answer, **{**known, **fields}
    )


def notes(ctx: Context) -> dict[str, Any]:
    """What was noted for the trace."""
    return ctx.span_state.notes
