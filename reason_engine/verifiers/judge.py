"""`judge`: a model judges answers, the served one itself. Each by itself, or two at a time.

Zheng et al. 2023, arXiv:2306.05685, sections 3.1 (single answers, pairs) and 3.4 (both orders, against the liking for
a place). A verdict is not sampled but read from probabilities: with options y and n

    absolute    s_i = P(y | prompt(i)) / (P(y | prompt(i)) + P(n | prompt(i)))
    pairwise    p_ij = (P(A | i before j) + P(B | j before i)) / 2;   s_i = mean over j of p_ij (`win-rate`), or
                t_i / (t_i + 1) with the strengths t of Bradley and Terry 1952, P(i beats j) = t_i / (t_i + t_j)

Departures: verdicts are probabilities instead of texts wherever the engine reports them and the profile does not say
that the model must write, else the share of `samples` texts; beyond `rivals` opponents each answer meets its next ones
in a ring. A judge prefers its own answers: nothing here corrects for that.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from reason_engine.contracts import Call, Site
from reason_engine.errors import BudgetExhausted
from reason_engine.profile import Profile, fill
from reason_engine.types import Draw, Path, Problem, Score
from reason_engine.verifiers import verifiers

ROUNDS = 200
PRIOR = 0.1
"""Of a win and a loss against an average opponent for each, so that strengths stay finite."""


@verifiers.register("judge")
class Judge(BaseModel):
    """The profile's prompts unless the request names its own; `{problem}`, `{solution}`, `{first}` and `{second}` in
    them are literal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["absolute", "pairwise"] = Field("absolute", description="each answer by itself, or in pairs")
    prompt: str | None = Field(None, max_length=20_000, description="what the judge is asked")
    options: tuple[str, str] | None = Field(
        None, description="the good verdict, then the bad; in pairs the first, then the second"
    )
    verdict: Literal["auto", "choice", "sample"] = Field(
        "auto", description="read the verdict's probability, or let the judge write"
    )
    samples: int = Field(1, ge=1, le=16, description="texts a verdict where the judge writes")
    max_tokens: int = Field(512, ge=1, le=8192, description="of a text where the judge writes")
    rank: Literal["bradley-terry", "win-rate"] = Field("bradley-terry", description="what pairs come to")
    rivals: int = Field(4, ge=1, le=64, description="most opponents of one answer on each side of the ring")

    _profile: Profile = PrivateAttr(Profile())
    _writes: bool = PrivateAttr(False)

    def bind(self, site: Site) -> Judge:
        """This model's prompts. The judge writes where the engine reports no probabilities of words, or where the
        profile requires it."""
        profile, bound = site.profile, self.model_copy()
        must = profile.judge_writes and self.prompt is None and self.mode == "absolute"
        bound._profile = profile
        bound._writes = self.verdict == "sample" or (self.verdict == "auto" and (must or not site.caps.choose))
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """In [0, 1]. Not a number for a path whose verdict the budget or the judge did not give."""
        alone = self.mode == "absolute" or len(paths) == 1
        values = await (self._absolute if alone else self._pairwise)(problem, paths, call)
        return [Score(value, "judge", self.mode) for value in values]

    async def _absolute(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[float]:
        profile, single = (self._profile, self.mode == "absolute")  # the prompt of pairs does not fit a lone answer
        prompt = (self.prompt if single else None) or profile.judge_prompt or ABSOLUTE
        own = profile.judge_options if prompt == profile.judge_prompt else ("yes", "no")
        texts = [{"problem": problem.question, "solution": solution(path)} for path in paths]
        options = (self.options if single else None) or own
        return await self._verdicts([fill(prompt, text) for text in texts], options, call)

    async def _pairwise(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[float]:
        prompt, options = self.prompt or PAIRWISE, self.options or ("A", "B")
        texts = [solution(path) for path in paths]
        pairs = ring(len(paths), self.rivals)
        orders = [order for i, j in pairs for order in ((i, j), (j, i))]
        prompts = [
            fill(prompt, {"problem": problem.question, "first": texts[i], "second": texts[j]}) for i, j in orders
        ]
        first = dict(zip(orders, await self._verdicts(prompts, options, call), strict=True))
        wins = {(i, j): (first[i, j] + 1 - first[j, i]) / 2 for i, j in pairs}
        known = {pair: value for pair, value in wins.items() if not math.isnan(value)}
        return (bradley_terry if self.rank == "bradley-terry" else win_rate)(known, len(paths))

    async def _verdicts(self, prompts: Sequence[str], options: tuple[str, str], call: Call) -> list[float]:
        """For each prompt how far the verdict is the first option; not a number where the budget refused. Raises
        BudgetExhausted if it refused all."""
        return await together([self._verdict(prompt, options, call) for prompt in prompts])

    async def _verdict(self, prompt: str, options: tuple[str, str], call: Call) -> float:
        if not self._writes:
            return (await call.choice(prompt, options)).probabilities[0]
        texts = await call.sample(prompt, Draw(self.samples, self.max_tokens))
        given = [verdict for verdict in (read(path.text, options) for path in texts) if verdict is not None]
        return sum(given) / len(given) if given else math.nan


async def together(verdicts: Sequence[Awaitable[float]]) -> list[float]:
    """Each of them; not a number where the budget refused. Raises BudgetExhausted if it refused all."""
    refused: list[BudgetExhausted] = []

    async def one(verdict: Awaitable[float]) -> float:
        try:
            return await verdict
        except BudgetExhausted as error:
            refused.append(error)
            return math.nan

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(verdict)) for verdict in verdicts]
    if verdicts and len(refused) == len(verdicts):
        raise refused[0]
    return [task.result() for task in tasks]


def solution(path: Path) -> str:
    """What of a path the judge sees: what follows its thinking, else all of it."""
    return path.solution.strip()


def read(text: str, options: tuple[str, str]) -> float | None:
    """1 for the first option, 0 for the second, by the one written last; None where neither is."""
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, options))})(?!\w)", text, re.IGNORECASE)
    return None if not found else float(found[-1].lower() == options[0].lower())


def ring(count: int, rivals: int) -> list[tuple[int, int]]:
    """The pairs that are judged, none twice: each with its next `rivals` in a ring, all with all where they are few."""
    pairs = {
        (min(i, j), max(i, j))
        for i in range(count)
        for j in ((i + k) % count for k in range(1, min(rivals, count - 1) + 1))
    }
    return sorted(pairs)


def win_rate(wins: Mapping[tuple[int, int], float], count: int) -> list[float]:
    """The mean share won; `wins[i, j]` is the share that i won against j. Not a number for one without opponents."""
    shares: list[list[float]] = [[] for _ in range(count)]
    for (i, j), share in wins.items():
        shares[i].append(share)
        shares[j].append(1 - share)
    return [sum(s) / len(s) if s else float("nan") for s in shares]


def bradley_terry(wins: Mapping[tuple[int, int], float], count: int) -> list[float]:
    """The shares t / (t + 1) of the strengths t that make the wins likeliest; not a number for one without opponents.

    Hunter 2004 (Annals of Statistics 32), equation 3: t_i <- W_i / sum_j n_ij / (t_i + t_j), with a weak prior.
    """
    strengths = [1.0] * count
    compared = {i for pair in wins for i in pair}
    won = [PRIOR] * count
    for (i, j), share in wins.items():
        won[i] += share
        won[j] += 1 - share
    for _ in range(ROUNDS):
        weights = [2 * PRIOR / (own + 1) for own in strengths]
        for i, j in wins:
            each = 1 / (strengths[i] + strengths[j])
            weights[i] += each
            weights[j] += each
        new = [w / weight for w, weight in zip(won, weights, strict=True)]
        change = max((abs(a - b) / b for a, b in zip(new, strengths, strict=True)), default=0.0)
        strengths = new
        if change < 1e-9:
            break
    return [t / (t + 1) if i in compared else float("nan") for i, t in enumerate(strengths)]


ABSOLUTE = """Here is a problem and a proposed solution.

Problem:
{problem}

Proposed solution:
{solution}

Check the solution step by step. Is its final answer correct? Reply with one word, yes or no."""

PAIRWISE = """Here is a problem and two proposed solutions.

Problem:
{problem}

Solution A:
{first}

Solution B:
{second}

Which solution is more likely to be correct? Reply with one letter, A or B."""
