"""A vote over texts that have no short value: the one that is most like the others, or that the model finds to be.

Medoid: argmax_i sum_j w_j s(i, j), which is minimum Bayes risk under the loss 1 - s (Kumar and Byrne 2004; for samples
of a language model Bertsch et al. 2023, arXiv:2310.01387). s is the F1 of the words that two texts share, each counted
as often as it stands in both; the cosine of embeddings where a model that embeds is served.

Universal self-consistency, Chen et al. 2023, arXiv:2311.17311, section 3: all answers in one prompt, and the model says
which of them agrees with most. Departures: it is read off as the probability of each number instead of being written,
once in the order given and once in reverse, so that a liking for a place cancels; at most SHOWN answers, those that are
most like the others, and no more than fit into half of the context.

Neither counts votes, so there is no confidence to report. Empty texts, those that a limit ended, and refusals while
others answer stand back.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import sqrt
from typing import TypeVar

from reason_engine.errors import BudgetExhausted, ContextLengthExceeded, EngineError, RequestError
from reason_engine.profile import fill
from reason_engine.runtime.context import Context
from reason_engine.types import Path, ScoreRequest

Item = TypeVar("Item")

SHOWN = 8
"""Answers that the model is shown; more of them it compares worse."""
LONGEST = 4000
"""Words of a text that are compared."""
OWN_STATES = "served"
"""The name by which an engine embeds with the served model's own states, which say little of meaning."""

Text = tuple[Path, str, float]
"""A path, what it says after its thought, and what it weighs."""


async def most_typical(ctx: Context, paths: Sequence[Path], weights: Sequence[float], *, ask: bool) -> Path | None:
    """The path whose text the others agree with most; None where none says anything. `ask`: by the model's own view."""
    texts = [(p, ctx.parse(p).content.strip(), w) for p, w in zip(paths, weights, strict=True) if p.finished and w > 0]
    texts = [text for text in texts if text[1]]
    texts = [text for text in texts if not refuses(text[1])] or texts
    if len(texts) < 2:
        return texts[0][0] if texts else None
    scores, how = await _likeness(ctx, texts)
    ranked = sorted(range(len(texts)), key=lambda place: (-scores[place], place))
    ctx.note(free_text=how, texts=len(texts))
    if ask and (chosen := await _consistent(ctx, [texts[place] for place in ranked[:SHOWN]])):
        return chosen
    return texts[ranked[0]][0]


def refuses(text: str) -> bool:
    """Whether a text declines to answer."""
    return _REFUSAL.match(text) is not None


def words(text: str) -> Counter[str]:
    """How often each word stands in a text, in any case; each sign of a script without spaces is a word."""
    return Counter(_WORD.findall(text.casefold())[:LONGEST])


def shared(first: Counter[str], second: Counter[str]) -> float:
    """F1 of the words of two texts."""
    both = (first & second).total()
    return 2 * both / (first.total() + second.total()) if both else 0.0


async def _likeness(ctx: Context, texts: Sequence[Text]) -> tuple[list[float], str]:
    """How much each text is like the others, and by what that was told."""
    weights = [weight for _, _, weight in texts]
    own = (OWN_STATES, ctx.info.name)
    model = next((name for name in ctx.caps.embeds if name not in own), None)
    if model is not None:
        try:
            found = await ctx.rate(ScoreRequest("", tuple(text for _, text, _ in texts), "embed", model), "embed")
            return _sums([list(vector) for vector in found.values], _cosine, weights), f"embeddings by {model}"
        except (BudgetExhausted, EngineError, RequestError) as error:
            ctx.note(embeddings=f"failed: {error}")
    bags = [words(text) for _, text, _ in texts]
    return await asyncio.to_thread(_sums, bags, shared, weights), "shared words"


def _sums(values: Sequence[Item], like: Callable[[Item, Item], float], weights: Sequence[float]) -> list[float]:
    """Of each value its weighted likeness to all others."""
    sums = [0.0] * len(values)
    for i, first in enumerate(values):
        for j in range(i):
            found = like(first, values[j])
            sums[i] += weights[j] * found
            sums[j] += weights[i] * found
    return sums


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    length = sqrt(sum(a * a for a in first) * sum(b * b for b in second))
    return sum(a * b for a, b in zip(first, second, strict=True)) / length if length else 0.0


async def _consistent(ctx: Context, texts: Sequence[Text]) -> Path | None:
    """The answer that the model finds to agree with most; None where it cannot be asked."""
    room, kept = ctx.info.context // 2, list(texts)
    while len(kept) > 1 and ctx.count_tokens(_prompt(ctx, kept)) > room:
        kept.pop()
    if len(kept) < 2:
        ctx.note(free_text="shared words: not even two answers fit into half of the context")
        return None
    labels = tuple(str(place) for place in range(1, len(kept) + 1))
    try:
        there = (await ctx.choice(_prompt(ctx, kept), labels, prefill=LEAD, stage="vote")).probabilities
        back = (await ctx.choice(_prompt(ctx, kept[::-1]), labels, prefill=LEAD, stage="vote")).probabilities[::-1]
    except (BudgetExhausted, ContextLengthExceeded) as error:
        ctx.note(free_text=f"shared words: {error}")
        return None
    both = [(one + other) / 2 for one, other in zip(there, back, strict=True)]
    ctx.note(free_text="the model's own view", views=[round(value, 4) for value in both])
    return kept[max(range(len(kept)), key=lambda place: both[place])][0]


def _prompt(ctx: Context, texts: Sequence[Text]) -> str:
    answers = "\n\n".join(f"Answer {place}:\n{text}" for place, (_, text, _) in enumerate(texts, 1))
    return fill(CONSISTENT, {"problem": ctx.problem.question, "answers": answers})


_SIGNS = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")
_REFUSAL = re.compile(
    r"\W*(?:(?:i['\u2019]?m|i am) (?:very |so )?(?:sorry|afraid)\b|sorry,|"
    r"(?:unfortunately,? )?(?:as an ai\b[^.]{0,60} )?i "
    r"(?:can(?:no|['\u2019])t|am (?:not able|unable) to|won['\u2019]t|do not feel comfortable))",
    re.IGNORECASE,
)

CONSISTENT = """\
Several answers to one question follow. Say which of them is most in agreement with the others as a whole.

Question:
{problem}

{answers}

Compare what they say, not how they say it, and name one of them by its number."""
LEAD = "The answer that agrees most with the others is number "
