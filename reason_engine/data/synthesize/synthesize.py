"""`reason data synthesize`: a teacher writes solutions, and problems if asked; what is right becomes training rows.

Rejection sampling, Yuan et al. 2023 (arXiv:2308.01825), section 3.3: several solutions a problem, the right and
different ones are kept. STaR, Zelikman et al. 2022 (arXiv:2203.14465), section 3: where none was right and the answer
is known, the teacher is asked again with the answer as a hint (rationalisation), and a right solution is kept under the
question *without* the hint. Problems are written from a few examples, as in Wang et al. 2022 (arXiv:2212.10560).

Who says what is right, in this order: a verifier by name, the known answer, or, for problems without either, agreement:
the answer that at least `agree` of the attempts share. Departures: STaR's outer loop (train on the rows, sample again)
is the user's, with `reason train`; agreement is a vote, so written problems may keep a shared mistake.

Every attempt is a line of the journal beside OUT, so a run that was broken off goes on. OUT holds `messages` rows with
their `provenance`; `.dropped.jsonl` every other attempt with its reason (wrong, no-answer, cut-off, duplicate, …).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from reason_engine.data import Options
from reason_engine.data.formats.readers import open_source
from reason_engine.data.formats.rows import Conversation, Question, Reference, known_answer, last_user_turn, to_json
from reason_engine.data.outputs import Account, Journal, Outputs, Tally, beside, file_hash, work_through
from reason_engine.data.synthesize.checks import AttemptJudge, cleaned_problem, problem_refusals
from reason_engine.data.synthesize.teacher import Reply, Teacher, build_strategy, check_verifier, seed_of
from reason_engine.errors import SetupError
from reason_engine.strategies import Strategy
from reason_engine.types import Message, Problem, Turns

Solvable = Reference | Question | Conversation


class SynthesizeConfig(Options):
    """`attempts`: solutions a problem, fewer once `keep` are right. `hints`: rationalisations where none was."""

    format: str | None = None
    write: int = Field(0, ge=0, description="problems to write from the file's, instead of solving those")
    shots: int = Field(3, ge=1, le=20)
    strategy: str = "chain-of-thought"
    options: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    verifier: str | None = None
    params: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    threshold: float = Field(0.5, ge=0, le=1)
    attempts: int = Field(4, ge=1, le=256)
    keep: int = Field(1, ge=1, le=256)
    hints: int = Field(0, ge=0, le=16)
    agree: float = Field(0.6, gt=0, le=1)
    suffix: str = ""
    temperature: float = Field(1.0, ge=0, le=2, description="of the problems that are written")
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """One problem to solve."""

    key: str
    place: Mapping[str, Any]
    prompt: Turns
    reference: str | None = None
    meta: Mapping[str, Any] | None = None

    def problem(self, *, hint: bool = False) -> Problem:
        """The problem as the teacher gets it; with the hint it is shown the answer."""
        place, turn = last_user_turn(self.prompt)
        more = f"\n{HINT.replace('{answer}', self.reference or '')}" if hint else ""
        before, after, meta = self.prompt[:place], self.prompt[place + 1 :], self.meta or {}
        return Problem(turn.content + more, before, reference=self.reference, meta=meta, tail=after)

    def suffixed(self, suffix: str) -> Turns:
        """The prompt of the row: with this text as the last line of the question."""
        place, turn = last_user_turn(self.prompt)
        asked = replace(turn, content=f"{turn.content}\n{suffix}") if suffix else turn
        return (*self.prompt[:place], asked, *self.prompt[place + 1 :])


async def synthesize(
    path: Path,
    out: Path,
    config: SynthesizeConfig,
    teacher: Teacher,
    *,
    tokens: int | None = None,
    concurrency: int = 8,
    fresh: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Account:
    """Make rows from a file of problems. `tokens`: the budget of the whole run, earlier parts of it included.

    Raises SetupError or RequestError before a token is spent where something is wrong, EngineError where the engine
    fails; what is done by then is kept.
    """
    file = open_source(path, config.format)
    if file.format.kind not in get_args(Solvable):
        name = file.format.name
        raise SetupError(f"{path}: format {name} holds no problems to solve; prompt+answer does, and prompt")
    strategy = build_strategy(config.strategy, config.options)
    if config.verifier:
        check_verifier(config.verifier, config.params)
    dump, model = config.model_dump(mode="json"), teacher.engine.info.name
    head = {"run": "synthesize", "input": file_hash(path), "model": model, "config": dump}
    with Outputs(out, (path,)) as outputs:
        journal, tally = Journal(beside(out, "journal"), head, fresh=fresh), Tally(outputs)
        judge = AttemptJudge(config.verifier is not None, config.threshold, config.keep, config.agree, teacher.equality)
        run = _Run(config, strategy, teacher.within(tokens, journal.spent), judge, journal, progress)
        problems = given = [_problem_of(row, place) for place, row, _ in tally.read(file) if isinstance(row, Solvable)]
        within_budget, counts = True, dict[str, int]()
        if config.write:
            if not given:
                raise SetupError(f"{path}: holds no problem to write others by")
            numbers = range(config.write)
            within_budget = await work_through(numbers, concurrency, lambda number: run.write(number, given))
            problems, counts = run.accepted(given, tally, path)
        if within_budget:
            await work_through(problems, concurrency, run.solve)
        counts |= await run.write_rows(problems, tally, model)
        return tally.finish(head, file, journal.spent, counts)


@dataclass(slots=True)
class _Run:
    """Makes the attempts that the journal does not hold yet, and rows of what it holds."""

    config: SynthesizeConfig
    strategy: Strategy
    teacher: Teacher
    judge: AttemptJudge
    journal: Journal
    progress: Callable[[int], None]
    done: int = 0

    async def write(self, number: int, given: list[SourceProblem]) -> bool:
        """One new problem by a few of the given ones; False where the budget is spent."""
        key = f"write/{number}"
        if key in self.journal:
            return True
        seed = seed_of(self.config.seed, key)
        shots = random.Random(seed).sample(given, min(self.config.shots, len(given)))
        questions = (shot.problem().question for shot in shots)
        shown = "\n\n".join(f"Problem {place}:\n{text}" for place, text in enumerate(questions, 1))
        reply = await self.teacher.write(WRITE.replace("{shown}", shown), seed, self.config.temperature)
        return self._keep(key, reply, {"text": cleaned_problem(reply.content)}) is not None

    async def solve(self, problem: SourceProblem) -> bool:
        """Attempts at one problem, until enough are right; False where the budget is spent."""
        entries: list[dict[str, Any]] = []
        for key, hint in self._keys(problem):
            refusals = await self.judge.refusals(problem.reference, entries)
            if self.judge.enough(hint, refusals, problem.reference is not None):
                continue
            entry = self.journal.entry(key) or await self._attempt(problem, key, hint)
            if entry is None:
                return False
            entries.append(entry)
        self.done += 1
        self.progress(self.done)
        return True

    def accepted(
        self, given: list[SourceProblem], tally: Tally, path: Path
    ) -> tuple[list[SourceProblem], dict[str, int]]:
        """The written problems that are new, in order, and counts; the others are dropped with their reason."""
        keys = {number: f"write/{number}" for number in range(self.config.write)}
        entries = {number: entry for number, key in keys.items() if (entry := self.journal.entry(key))}
        tally.not_attempted += len(keys) - len(entries)
        problems: list[SourceProblem] = []
        refusals = problem_refusals(entries, [problem.problem().question for problem in given])
        for number, refusal in refusals.items():
            place, text = {"file": str(path), "written": number}, entries[number].get("text", "")
            if refusal is None:
                problems.append(SourceProblem(f"w{number}", place, (Message("user", text),)))
            else:
                tally.outputs.drop(refusal, place, {"stage": "problem", "text": text})
        return problems, {"written": len(entries), "refused": len(entries) - len(problems)}

    async def write_rows(self, problems: list[SourceProblem], tally: Tally, model: str) -> dict[str, int]:
        """The rows that the journal's attempts came to, in the order of the problems; the others are dropped."""
        counts = {"solved": 0, "unsolved": 0}
        for problem in problems:
            keys, known = list(self._keys(problem)), problem.reference is not None
            entries = [entry for key, _ in keys if (entry := self.journal.entry(key))]
            refusals = await self.judge.refusals(problem.reference, entries)
            if len(entries) < len(keys) and not self.judge.enough(keys[len(entries)][1], refusals, known):
                tally.not_attempted += 1
            if entries:
                counts["solved" if None in refusals else "unsolved"] += 1
            judged_by = self.config.verifier or ("reference" if known else "agreement")
            for entry, refusal in zip(entries, refusals, strict=True):
                attempt = {"attempt": entry["key"], "seed": seed_of(self.config.seed, entry["key"])}
                if refusal:
                    tally.drop(refusal, problem.place, {**attempt, "text": entry.get("content", "")})
                    continue
                provenance = {
                    "method": "rationalisation" if entry.get("hint") else "rejection-sampling",
                    **problem.place,
                    **attempt,
                    "model": model,
                    "strategy": self.config.strategy,
                    "judged_by": judged_by,
                    "answer": entry.get("answer"),
                    **({"score": entry["score"]} if "score" in entry else {}),
                }
                answer = Message("assistant", entry.get("content", ""), entry.get("reasoning"))
                row = Conversation((*problem.suffixed(self.config.suffix), answer), "synthesized")
                tally.keep({**to_json(row), "provenance": provenance})
        return counts

    async def _attempt(self, problem: SourceProblem, key: str, hint: bool) -> dict[str, Any] | None:
        config, seed = self.config, seed_of(self.config.seed, key)
        reply = await self.teacher.solve(self.strategy, problem.problem(hint=hint), seed)
        entry: dict[str, Any] = {"hint": True} if hint else {}
        tokens = 0
        if config.verifier and reply.path is not None and not reply.cut:
            asked = problem.problem()
            score, detail, tokens = await self.teacher.judge(config.verifier, config.params, asked, reply.path, seed)
            entry |= {"score": score, **({"detail": detail} if detail else {})}
        return self._keep(key, reply, entry, tokens)

    def _keep(self, key: str, reply: Reply, entry: Mapping[str, Any], tokens: int = 0) -> dict[str, Any] | None:
        """A line of the journal. `tokens`: what judging the reply took."""
        tokens += reply.tokens
        if reply.cut:
            self.journal.spend(tokens)
            return None
        return self.journal.add(key, {**reply.entry(), **entry, "tokens": tokens})

    def _keys(self, problem: SourceProblem) -> Iterator[tuple[str, bool]]:
        """Every attempt that may be made, in order, and whether it is hinted."""
        for number in range(self.config.attempts):
            yield f"{problem.key}/{number}", False
        if problem.reference is not None:
            for number in range(self.config.hints):
                yield f"{problem.key}/hint/{number}", True


def _problem_of(row: Solvable, place: Mapping[str, Any]) -> SourceProblem:
    meta = row.meta if isinstance(row, Reference) else {}
    return SourceProblem(str(place["line"]), place, row.prompt, known_answer(row), meta)


HINT = """The right answer is {answer}. Show the steps that lead to it, as if it had not been told; do not speak of \
having been told."""
WRITE = """Here are problems of one kind:

{shown}

Write one more problem of this kind and about as hard, with another story, other names and other numbers. It must have \
one right answer and hold all that is needed to find it. Write the problem only, without its solution."""
