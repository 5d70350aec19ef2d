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
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data.formats.readers import Source, open_source
from reason_engine.data.formats.rows import Conversation, Question, Reference, Row, Turns, to_json
from reason_engine.data.synthesize.journal import Journal, each, file_hash
from reason_engine.data.synthesize.outputs import Account, Outputs, Refusal, Tally, beside
from reason_engine.data.synthesize.problems import accepted, enough, verdicts, write_prompt, written
from reason_engine.data.synthesize.rewrites import known_answer
from reason_engine.data.synthesize.teacher import Said, Teacher, build_strategy, check_verifier, seed_of
from reason_engine.errors import SetupError
from reason_engine.types import Message, Problem


class SynthesizeConfig(BaseModel):
    """`attempts`: solutions a problem, fewer once `keep` are right. `hints`: rationalisations where none was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
class Task:
    """One problem to solve."""

    key: str
    place: Mapping[str, Any]
    prompt: Turns
    reference: str | None = None
    meta: Mapping[str, Any] | None = None

    @property
    def last(self) -> int:
        """The place of the last user turn."""
        return max(number for number, turn in enumerate(self.prompt) if turn.role == "user")

    def problem(self, *, hint: bool = False) -> Problem:
        """The problem as the teacher gets it; with the hint it is shown the answer."""
        question, before = self.prompt[self.last].content, self.prompt[: self.last]
        if hint:
            question = f"{question}\n{HINT.replace('{answer}', self.reference or '')}"
        after = self.prompt[self.last + 1 :]
        return Problem(question, before, reference=self.reference, meta=self.meta or {}, tail=after)

    def suffixed(self, suffix: str) -> Turns:
        """The prompt of the row: with this text as the last line of the question."""
        turn = self.prompt[self.last]
        asked = replace(turn, content=f"{turn.content}\n{suffix}") if suffix else turn
        return (*self.prompt[: self.last], asked, *self.prompt[self.last + 1 :])


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
    source = open_source(path, config.format)
    if source.format.kind not in (Reference, Question, Conversation):
        raise SetupError(
            f"{path}: format {source.format.name} holds no problems to solve; prompt+answer does, and prompt"
        )
    build_strategy(config.strategy, config.options)
    if config.verifier:
        check_verifier(config.verifier, config.params)
    dump, model = config.model_dump(mode="json"), teacher.engine.info.name
    head = {"run": "synthesize", "input": file_hash(path), "model": model, "config": dump}
    with (
        Outputs(out, ("dropped",), (path,)) as outputs,
        Journal(beside(out, "journal"), head, fresh=fresh) as journal,
    ):
        desk = teacher.within(tokens, journal.spent)
        worker, tally = _Worker(config, desk, journal, progress), Tally(outputs)
        rows, bad, seeds = _read(source, tally)
        problems: dict[str, int] = {}
        if config.write:
            if not seeds:
                raise SetupError(f"{path}: holds no problem to write others by")
            going = await each(range(config.write), concurrency, lambda number: worker.write(number, seeds))
            tasks, problems = _accept(config, journal, seeds, tally, path)
        else:
            going, tasks = True, seeds
        if going:
            await each(tasks, concurrency, worker.solve)
        problems |= await _collect(tasks, config, journal, teacher, tally, model)
        if config.write:
            missing = sum(f"write/{number}" not in journal for number in range(config.write))
            tally.not_attempted += missing
        dropped = tally.reasons.total()
        account = Account(
            "synthesize", rows, bad, tally.kept + dropped, tally.kept, dropped, tally.not_attempted,
            dict(tally.reasons), journal.spent, source.statement, model, dump, problems,
        )  # fmt: skip
        outputs.finish(account.to_json())
    return account


class _Worker:
    """Makes attempts that the journal does not hold yet."""

    def __init__(
        self,
        config: SynthesizeConfig,
        teacher: Teacher,
        journal: Journal,
        progress: Callable[[int], None],
    ) -> None:
        self._config, self._teacher, self._journal = config, teacher, journal
        self._strategy = build_strategy(config.strategy, config.options)
        self._progress, self._done = progress, 0

    async def write(self, number: int, seeds: list[Task]) -> bool:
        """One new problem by a few of the given ones; False where the budget is spent."""
        key = f"write/{number}"
        if key in self._journal:
            return True
        seed = seed_of(self._config.seed, key)
        shots = random.Random(seed).sample(seeds, min(self._config.shots, len(seeds)))
        prompt = write_prompt([shot.problem().question for shot in shots])
        said = await self._teacher.say(prompt, seed, self._config.temperature)
        return self._keep(key, said, {"text": written(said.content)}) is not None

    async def solve(self, task: Task) -> bool:
        """Attempts at one problem, until enough are right; False where the budget is spent."""
        entries: list[dict[str, Any]] = []
        for key, hint in _keys(task, self._config):
            judged = await verdicts(task.reference, entries, self._config, self._teacher.equality)
            if enough(hint, judged, self._config, task.reference is not None):
                continue
            entry = self._journal.entry(key) or await self._attempt(task, key, hint)
            if entry is None:
                return False
            entries.append(entry)
        self._done += 1
        self._progress(self._done)
        return True

    async def _attempt(self, task: Task, key: str, hint: bool) -> dict[str, Any] | None:
        seed = seed_of(self._config.seed, key)
        problem = task.problem(hint=hint)
        said = await self._teacher.solve(self._strategy, problem, seed)
        more: dict[str, Any] = {"hint": True} if hint else {}
        if self._config.verifier and said.path is not None and not said.cut:
            score, detail, tokens = await self._teacher.judge(
                self._config.verifier, self._config.params, task.problem(), said.path, seed
            )
            more |= {"score": score, **({"detail": detail} if detail else {})}
            return self._keep(key, said, more, tokens)
        return self._keep(key, said, more)

    def _keep(self, key: str, said: Said, more: Mapping[str, Any], extra: int = 0) -> dict[str, Any] | None:
        if said.cut:
            self._journal.spend(said.tokens + extra)
            return None
        entry = said.entry()
        return self._journal.add(key, {**entry, **more, "tokens": entry["tokens"] + extra})


def _read(source: Source, tally: Tally) -> tuple[int, int, list[Task]]:
    """Every row as a task; bad ones are noted."""
    rows, bad, tasks = 0, 0, list[Task]()
    for record in source:
        rows += 1
        place = {"file": str(source.path), "line": record.line}
        if record.row is None:
            bad += 1
            assert record.fault is not None
            why = Refusal("bad-row", {"field": record.fault.field, "message": record.fault.message})
            tally.note(why, place, {"row": record.raw})
        else:
            tasks.append(_task(record.row, place))
    return rows, bad, tasks


def _task(row: Row, place: Mapping[str, Any]) -> Task:
    assert isinstance(row, (Reference, Question, Conversation))
    meta = row.meta if isinstance(row, Reference) else {}
    return Task(str(place["line"]), place, row.prompt, known_answer(row), meta)


def _accept(
    config: SynthesizeConfig, journal: Journal, seeds: list[Task], tally: Tally, path: Path
) -> tuple[list[Task], dict[str, int]]:
    """The written problems that are new, in order; the others are dropped with their reason."""
    entries = {number: journal.entry(f"write/{number}") for number in range(config.write)}
    texts = {number: entry for number, entry in entries.items() if entry is not None}
    tasks: list[Task] = []
    judged = accepted(texts, [seed.problem().question for seed in seeds])
    for number, refusal in judged.items():
        place = {"file": str(path), "written": number}
        text = texts[number].get("text", "")
        if refusal is None:
            tasks.append(Task(f"w{number}", place, (Message("user", text),)))
        else:
            tally.note(refusal, place, {"stage": "problem", "text": text})
    return tasks, {"written": len(texts), "refused": len(texts) - len(tasks)}


async def _collect(
    tasks: list[Task],
    config: SynthesizeConfig,
    journal: Journal,
    teacher: Teacher,
    tally: Tally,
    model: str,
) -> dict[str, int]:
    """Write what the journal holds, in the order of the problems."""
    counts = {"solved": 0, "unsolved": 0}
    for task in tasks:
        keys = list(_keys(task, config))
        made = [(key, entry) for key, _ in keys if (entry := journal.entry(key))]
        entries = [entry for _, entry in made]
        judged = await verdicts(task.reference, entries, config, teacher.equality)
        if len(made) < len(keys) and not enough(
            keys[len(made)][1], judged, config, task.reference is not None
        ):
            tally.not_attempted += 1
        by = config.verifier or ("reference" if task.reference is not None else "agreement")
        if made:
            counts["solved" if None in judged else "unsolved"] += 1
        for (key, entry), refusal in zip(made, judged, strict=True):
            seed = seed_of(config.seed, key)
            if refusal:
                told = {"attempt": key, "seed": seed, "text": entry.get("content", "")}
                tally.drop(refusal, task.place, told)
                continue
            provenance = {
                "method": "rationalisation" if entry.get("hint") else "rejection-sampling",
                **task.place,
                "attempt": key,
                "seed": seed,
                "model": model,
                "strategy": config.strategy,
                "judged_by": by,
                "answer": entry.get("answer"),
                **({"score": entry["score"]} if "score" in entry else {}),
            }
            tally.keep({**_row(task, entry, config.suffix), "provenance": provenance})
    return counts


def _row(task: Task, entry: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    answer = Message("assistant", entry.get("content", ""), entry.get("reasoning"))
    return to_json(Conversation((*task.suffixed(suffix), answer), "synthesized"))


def _keys(task: Task, config: SynthesizeConfig) -> Iterator[tuple[str, bool]]:
    """Every attempt that may be made, in order, and whether it is hinted."""
    for number in range(config.attempts):
        yield f"{task.key}/{number}", False
    if task.reference is not None:
        for number in range(config.hints):
            yield f"{task.key}/hint/{number}", True


HINT = """The right answer is {answer}. Show the steps that lead to it, as if it had not been told; do not speak of \
having been told."""
