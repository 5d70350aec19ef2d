"""What a policy learns from: the problems that it is asked, in stages, and the rewards of its samples.

A stage of the curriculum replaces params of families of the mixture until the mean reward of late steps reaches
`until`; the mixture without replacements follows the last stage. The state is part of the run's checkpoint.

Rewards are verifiers by name, mixed with weights that may change over the run:

    r_i = sum over outcome rewards k of w_k(t) r_ki,      w_k(t) from `weight` at the beginning to `last` at the end

A process reward judges steps: each value stands at the last token of its step, and the method decides how it is
spread. Verifiers work without a server, by the runtime's own context: on the judging engine, whose weights do not move
with the policy's, or, where there is none, on an engine that refuses to generate.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product
from typing import Any, TypeVar

from reason_engine import answers
from reason_engine.answers import Equality, find
from reason_engine.contracts import Capabilities, Engine, Powers, ProcessVerifier, Verifier
from reason_engine.data import Example
from reason_engine.data.formats.rows import Reference, question_of
from reason_engine.data.mixture import Stream
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.engines.rewards.naming import is_url
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing, EngineError, ReasonError, RequestError, SetupError, first_error
from reason_engine.profile import Profile
from reason_engine.runtime.answering import read_content
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.run import Run
from reason_engine.runtime.trace import Opened
from reason_engine.runtime.verify import NONE, checker_of, verifier_of
from reason_engine.settings import load_settings
from reason_engine.steps import step_pieces
from reason_engine.training.common.encode import FileSource
from reason_engine.training.online.recipe import Online, Reward
from reason_engine.types import Limits, Message, Path, Problem, Sampling, ScoreRequest

Result = TypeVar("Result")
StepRewards = list[tuple[int, float]]
"""Of one sample: (place of the step's last token in the answer, reward)."""
LATE = 0.8
"""Share of the running mean that one step leaves in place."""


@dataclass(frozen=True, slots=True)
class TrainingProblem:
    """A problem to be tried. `bare`: its right answer is a whole text, without the mark of an answer."""

    problem: Problem
    family: str = ""
    bare: bool = False


Samples = tuple[TrainingProblem, Sequence[Path]]
"""A problem and the paths that were drawn of it."""


class Curriculum:
    """Problems without end; a `Source` to a checkpoint."""

    def __init__(self, config: Online) -> None:
        """Raises SetupError for a file that cannot be read or fits no format."""
        self._stages = config.curriculum
        if config.mixture:
            mixtures = [stage.mixture(config.mixture) for stage in self._stages]
            self._sources = [Stream(parts, config.seed) for parts in (*mixtures, config.mixture)]
        else:
            assert config.data is not None
            self._sources = [FileSource(config.data, (Reference,), config.seed, config.format)]
        self.stage = self._begun = 0
        self._mean: float | None = None

    def take(self, count: int) -> list[TrainingProblem]:
        """The next problems."""
        return [training_problem(next(self._sources[self.stage])) for _ in range(count)]

    def record(self, reward: float, step: int) -> None:
        """Takes the mean reward of a step; the next stage begins where this one is mastered."""
        if self.stage == len(self._stages):
            return
        self._mean = reward if self._mean is None else LATE * self._mean + (1 - LATE) * reward
        stage = self._stages[self.stage]
        if self._mean >= stage.until or (stage.steps and step - self._begun >= stage.steps):
            self.stage, self._begun, self._mean = self.stage + 1, step, None

    def state(self) -> list[Any]:
        """Plain values."""
        return [self.stage, self._begun, self._mean, [source.state() for source in self._sources]]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from a kept state."""
        self.stage, self._begun, self._mean, states = state
        for source, one in zip(self._sources, states, strict=True):
            source.restore(one)


def training_problem(row: Example | Reference) -> TrainingProblem:
    """The problem of a row. Raises SetupError for a prompt that does not end with the user's turn."""
    answer = find(row.answer)
    if isinstance(row, Reference):
        if row.prompt[-1].role != "user":
            raise SetupError(f"a prompt must end with the user's turn; the one answered {row.answer!r} does not")
        question, earlier = question_of(row), row.prompt[:-1]
        return TrainingProblem(Problem(question, earlier, reference=answer or row.answer, meta=row.meta))
    turns = (turn for asked, said in row.history for turn in (Message("user", asked), Message("assistant", said)))
    reference = answer if answer is not None else row.answer.strip()
    return TrainingProblem(Problem(row.question, tuple(turns), reference=reference), row.family, answer is None)


@dataclass(frozen=True, slots=True)
class BatchRewards:
    """`outcome[p][g]` is the weighted sum; `steps` holds (weight, values by prompt and sample) of each process reward;
    `means` are over all samples, by verifier, before weighting; `unjudged`: values that a verifier did not give."""

    outcome: list[list[float]]
    steps: list[tuple[float, list[list[StepRewards]]]]
    means: Mapping[str, float]
    unjudged: int = 0

    def totals(self) -> list[list[float]]:
        """One number a sample: the outcome plus the weighted mean of its steps."""
        totals = self.outcome
        for weight, table in self.steps:
            pairs = zip(totals, table, strict=True)
            totals = [[r + weight * _mean_of_steps(s) for r, s in zip(*pair, strict=True)] for pair in pairs]
        return totals

    def select(self, kept: Sequence[int]) -> BatchRewards:
        """Of these prompts."""
        steps = [(weight, [table[p] for p in kept]) for weight, table in self.steps]
        return replace(self, outcome=[self.outcome[p] for p in kept], steps=steps)

    def __add__(self, other: BatchRewards) -> BatchRewards:
        """Both batches; the means are the first one's, which was drawn without choosing."""
        steps = [(w, [*a, *b]) for (w, a), (_, b) in zip(self.steps, other.steps, strict=True)]
        unjudged = self.unjudged + other.unjudged
        return BatchRewards([*self.outcome, *other.outcome], steps, self.means, unjudged)


@dataclass
class RewardScorer:
    """Makes the rewards. `judge`: an engine whose models judge; None: verifiers that ask a model are refused."""

    rewards: Sequence[Reward]
    profile: Profile
    judge: Engine | None
    powers: Powers = NONE
    equality: Equality = field(default_factory=Equality)
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._engine = self.judge or Scripted(_refuse, caps=Capabilities(token_ids=True))

    def check(self, problems: Sequence[TrainingProblem]) -> None:
        """Raises SetupError naming the reward that cannot judge one of these problems."""
        for (number, reward), problem in product(enumerate(self.rewards), problems):
            if _applies(reward, problem):
                self._verifier(number, problem)

    async def score(self, groups: Sequence[Samples], done: float) -> BatchRewards:
        """Judge samples when this share of the run is done."""
        outcome = [[0.0] * len(paths) for _, paths in groups]
        steps: list[tuple[float, list[list[StepRewards]]]] = []
        means: dict[str, float] = {}
        unjudged = 0
        for number, reward in enumerate(self.rewards):
            weight, given = reward.weight_at(done), list[float]()
            places = [p for p, (problem, _) in enumerate(groups) if _applies(reward, problem)]
            judged = [groups[p] for p in places]
            if reward.process:
                table: list[list[StepRewards]] = [[[] for _ in paths] for _, paths in groups]
                for p, found in zip(places, await self._judge_all(number, judged, self._steps), strict=True):
                    table[p] = found
                    given += map(_mean_of_steps, found)
                steps.append((weight, table))
            else:
                for p, raw in zip(places, await self._judge_all(number, judged, self._values), strict=True):
                    unjudged += sum(not math.isfinite(value) for value in raw)
                    values = _fill(raw)
                    given += values
                    outcome[p] = [total + weight * value for total, value in zip(outcome[p], values, strict=True)]
            means[reward.verifier] = sum(given) / len(given) if given else 0.0
        return BatchRewards(outcome, steps, means, unjudged)

    async def _judge_all(
        self,
        number: int,
        groups: Sequence[Samples],
        judge: Callable[[int, TrainingProblem, Sequence[Path]], Coroutine[Any, Any, Result]],
    ) -> list[Result]:
        """Verdicts in order; at once where a model judges, which then reads many texts in a pass.

        Raises SetupError naming a reward that a problem or the config leaves nothing to judge by.
        """
        try:
            if self.judge is None:
                return [await judge(number, *group) for group in groups]
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(judge(number, *group)) for group in groups]
            return [task.result() for task in running]
        except Exception as error:  # a boundary: what runs together fails in groups
            cause = first_error(error)
            if isinstance(cause, RequestError):
                raise SetupError(f"rewards.{number}: {cause.message}") from None
            if isinstance(cause, ReasonError):
                raise cause from None
            raise

    async def _values(self, number: int, problem: TrainingProblem, paths: Sequence[Path]) -> list[float]:
        verifier = self._verifier(number, problem)
        return [score.value for score in await verifier.score(problem.problem, paths, self._call(problem))]

    async def _steps(self, number: int, problem: TrainingProblem, paths: Sequence[Path]) -> list[StepRewards]:
        verifier, call = self._verifier(number, problem), self._call(problem)
        assert isinstance(verifier, ProcessVerifier)
        steps: list[StepRewards] = []
        for path in paths:
            values = _fill([score.value for score in await verifier.score_steps(problem.problem, path, call)])
            steps.append(list(zip(step_places(path, self.profile.step_end), values, strict=False)))
        return steps

    def _verifier(self, number: int, problem: TrainingProblem) -> Verifier:
        reward, where, caps = self.rewards[number], f"rewards.{number}", self._engine.caps
        name = reward.verifier
        try:
            made = verifier_of(name, reward.params, self.profile, problem.problem, caps, where, self.powers)
        except RequestError as error:
            if error.code == "code_execution_off" and self.powers.code is None:
                raise SetupError(
                    f"{where}: the verifier {name!r} runs what samples say; allow_code: true lets it, in a sandbox"
                ) from None
            hint = "; set `judge` to a model" if isinstance(error, CapabilityMissing) else ""
            raise SetupError(f"{where}: {error.message}{hint}") from None
        if reward.process and not isinstance(made, ProcessVerifier):
            raise SetupError(f"{where}: process: {name!r} judges whole answers, not steps")
        return made

    def _call(self, problem: TrainingProblem) -> Context:
        run = Run(
            id=f"reward-{next(self._numbers)}", engine=self._engine, problem=problem.problem, profile=self.profile,
            budget=Budget(Limits()), sampling=Sampling(max_tokens=0), strategy="reward", seed=0,
            publish=lambda event: None, equality=self.equality, prompts=PromptCache(self._engine),
        )  # fmt: skip
        return Context(run, run.open(Opened(0, None, "reward")))


def check_endpoints(reward_models: Mapping[str, str]) -> list[str]:
    """Each reward model behind a URL judges one word. Raises SetupError naming the one that does not."""
    if not (urls := {name: url for name, url in reward_models.items() if is_url(url)}):
        return []
    endpoints = Endpoints(urls, keys={name: key for name, key in load_settings().reward_keys.items() if name in urls})

    async def ask() -> None:
        try:
            for name, kind in endpoints.kinds.items():
                task = "token_reward" if kind == "process" else "reward"
                turns = (Message("user", "1?"),)
                try:
                    await endpoints.score(ScoreRequest("preflight", ("1",), task, name, turns, ((1,),)))
                except EngineError as error:
                    raise SetupError(f"reward_models.{name}: {urls[name]}: {error}") from None
        finally:
            await endpoints.close()

    asyncio.run(ask())
    return [f"reward models: {', '.join(urls)}; each has judged a word"]


def answer_of(profile: Profile, problem: TrainingProblem, content: str) -> str | None:
    """The answer in what a sample says, as a vote would read it; None where there is none."""
    exact = checker_of(profile, problem.problem) is not None
    found = read_content(content, answers.infer(problem.problem.asked), profile, exact=exact)
    if found is None or (problem.bare and found.strength == "weak"):
        return (content.strip() or None) if problem.bare else None
    return found.value


def step_places(path: Path, end: str) -> list[int]:
    """The place of the last token of each step of a path, by the tokens' texts; steps without text are left out."""
    borders, at = list[int](), 0
    for token in path.logprobs:
        at += len(token.token)
        borders.append(at)
    places, at, token = list[int](), 0, 0
    for piece in step_pieces(path.text, end):
        if piece.strip() and borders:
            while token < len(borders) - 1 and borders[token] < at + len(piece):
                token += 1
            places.append(token)
        at += len(piece) + len(end)
    return places


def _applies(reward: Reward, problem: TrainingProblem) -> bool:
    return not reward.families or problem.family in reward.families


def _mean_of_steps(steps: StepRewards) -> float:
    return sum(value for _, value in steps) / len(steps) if steps else 0.0


def _fill(values: list[float]) -> list[float]:
    """What was not judged counts as the mean of the rest: it neither gains nor loses."""
    known = [value for value in values if math.isfinite(value)]
    mean = sum(known) / len(known) if known else 0.0
    return [value if math.isfinite(value) else mean for value in values]


def _refuse(prompt: str, seed: int, index: int) -> str:
    raise SetupError("rewards: a verifier asks a model; set `judge` to the folder of one that judges")
