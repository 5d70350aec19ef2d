"""Reading: a question about one of many documents that nobody has seen, since its facts are made up afresh.

    The red box holds 34 stamps. Room 12 belongs to Anna.        (one paragraph of one document)
    How many stamps does the red box hold?      ->      34

A model without the documents can only guess, so the task measures knowledge on against off. First the documents:

    python -m reason_engine.recipes.reading_task DIR --seed 1
    reason eval reading --seed 1 --knowledge DIR --strategies direct,direct:knowledge=true
    reason serve --knowledge DIR         and then: reason eval reading --seed 1 --url URL --strategies …
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.answers import Equality
from reason_engine.evals import tasks
from reason_engine.recipes.reading import Fact, fact
from reason_engine.types import Problem

FACTS = 3
"""Sentences of a paragraph, as many as the sources of the training data have at most."""
PARAGRAPHS = 20


@tasks.register("reading")
class Reading(BaseModel):
    """`facts`: how many the documents state together; the same number must have been written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: int = Field(2000, ge=FACTS, le=20_000)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """Facts in an order of their own, so that neighbours are not asked for together; 500 without a limit."""
        known = facts(seed, self.facts)
        order = random.Random(f"eval-reading-order-{seed}").sample(range(len(known)), len(known))
        return [
            Problem(
                known[place].question, reference=known[place].answer, task="reading", meta={"index": place}
            )
            for place in order[: limit or 500]
        ]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")


def facts(seed: int, count: int) -> list[Fact]:
    """`count` facts of which no two answer one question. Training draws from the same forms under other seeds."""
    rng, seen, found = random.Random(f"eval-reading-{seed}"), set[str](), list[Fact]()
    while len(found) < count:
        one = fact(rng)
        if one.question not in seen:
            seen.add(one.question)
            found.append(one)
    return found


def write_documents(folder: Path, seed: int, count: int) -> int:
    """Write the documents that state these facts; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [one.text for one in facts(seed, count)]
    rows = [" ".join(texts[at : at + FACTS]) for at in range(0, len(texts), FACTS)]
    pages = [rows[at : at + PARAGRAPHS] for at in range(0, len(rows), PARAGRAPHS)]
    for number, page in enumerate(pages, 1):
        (folder / f"page-{number:04d}.txt").write_text("\n\n".join(page) + "\n", "utf-8")
    return len(pages)


def main() -> None:
    """Write the documents of a seed."""
    options = argparse.ArgumentParser(description="Write the documents that the task `reading` asks about.")
    options.add_argument("folder", type=Path)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--facts", type=int, default=2000)
    given = options.parse_args()
    print(f"{write_documents(given.folder, given.seed, given.facts)} documents in {given.folder}")


if __name__ == "__main__":
    main()
