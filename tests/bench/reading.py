"""How well answers are read and kinds inferred, on public data and on real outputs that were read by hand.

    python -m tests.bench.reading --data DIR [--records FILE] [--aside] [--errors]

DIR holds gsm8k, svamp, math500, humaneval and spec-bench as published; FILE is the outputs of a real model behind
tests/answers/labels.jsonl (not in the repository). Half of the labels is set aside: it is counted with `--aside` only,
and rules are never changed by its errors.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.answers import AnswerKind, AnswerSpec, Equality, infer, read

LABELS = Path(__file__).parent.parent / "answers" / "labels.jsonl"
FREE = ("translation", "summarization", "qa", "rag", "writing", "roleplay", "humanities", "stem")
CALCULATOR = re.compile(r"<<[^>]*>>")
"""GSM8K's notes to a calculator, which are no part of what people read."""
NUMBERS = frozenset[AnswerKind](("number", "expression"))


@dataclass(frozen=True)
class Row:
    """A measure: how many of how many, what the design asks for, and what went wrong."""

    name: str
    right: int
    of: int
    wanted: str
    wrong: tuple[str, ...] = ()


def lines_of(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode().split("\n") if line.strip()]


async def labelled(records: Path, aside: bool, equality: Equality) -> Iterator[Row]:
    """The labelled outputs, finished and cut: the kind is inferred, the value compared by it."""
    rows, right, count, wrong = lines_of(records), Counter[bool](), Counter[bool](), list[str]()
    for label in lines_of(LABELS):
        row = rows[label["row"]]
        output = row["outputs"][label["output"]]
        assert hashlib.sha256(output["text"].encode()).hexdigest().startswith(label["sha256"]), "other records"
        if label["aside"] is not aside:
            continue
        spec, cut = infer(row["question"]), output["finish"] == "length"
        found = read(output["text"], spec, cut=cut)
        value, wanted = found and found.value, label["read"]
        same = value is wanted if value is None or wanted is None else await equality.same(value, wanted, spec.kind)
        right[cut] += same
        count[cut] += 1
        if not same:
            wrong.append(f"row {label['row']} output {label['output']} {spec.kind}: {value!r}, by hand {wanted!r}")
    half = "set aside" if aside else "seen"
    return iter(
        (
            Row(f"labelled, {half}, finished", right[False], count[False], ">= 98 %", tuple(wrong)),
            Row(f"labelled, {half}, cut off", right[True], count[True], ""),
        )
    )


async def solutions(data: Path, split: str, equality: Equality) -> Row:
    """GSM8K's human solutions without the line of the answer."""
    wrong, rows = list[str](), lines_of(data / "gsm8k" / f"{split}.jsonl")
    for row in rows:
        solution, _, answer = row["answer"].rpartition("\n####")
        spec = AnswerSpec("number", percent=infer(row["question"]).percent)
        found = read(CALCULATOR.sub("", solution), spec)
        if found is None or not await equality.same(found.value, answer.strip(), "number"):
            wrong.append(f"{found and found.value!r}, is {answer.strip()}: {solution[-200:]!r}")
    return Row(f"GSM8K {split}, human solutions", len(rows) - len(wrong), len(rows), ">= 99 %", tuple(wrong))


async def competition(data: Path, equality: Equality) -> Row:
    """MATH-500's own solutions, as expressions."""
    wrong, rows = list[str](), lines_of(data / "math500" / "test500.jsonl")
    for row in rows:
        found = read(row["solution"], AnswerSpec("expression"))
        if found is None or not await equality.same(found.value, row["answer"], "expression"):
            wrong.append(f"{found and found.value!r}, is {row['answer']!r}")
    return Row("MATH-500, own solutions", len(rows) - len(wrong), len(rows), "500 of 500", tuple(wrong))


def kinds(data: Path) -> Iterator[Row]:
    """The kinds of each set's questions."""
    gsm8k = [row["question"] for row in lines_of(data / "gsm8k" / "test.jsonl")]
    svamp = json.loads((data / "svamp" / "SVAMP.json").read_text("utf-8"))
    joined = [f"{row['Body'].strip().rstrip('.')}. {row['Question'].strip()}" for row in svamp]
    math = [row["problem"] for row in lines_of(data / "math500" / "test500.jsonl")]
    code = [row["prompt"] for row in lines_of(data / "humaneval" / "HumanEval.jsonl.gz")]
    spec = [row for row in lines_of(data / "spec-bench" / "question.jsonl") if row["category"] in FREE]
    yield kind_row("GSM8K number", gsm8k, lambda kind: kind == "number", ">= 98 %")
    yield kind_row("SVAMP number", joined, lambda kind: kind == "number", ">= 98 %")
    yield kind_row("MATH-500 number or expression", math, NUMBERS.__contains__, ">= 93 %")
    yield kind_row("HumanEval code", code, lambda kind: kind == "code", ">= 98 %")
    yield kind_row("Spec-Bench free", [row["turns"][0] for row in spec], lambda kind: kind == "free", ">= 97 %")


def kind_row(name: str, questions: list[str], right: Callable[[AnswerKind], bool], wanted: str) -> Row:
    wrong = [
        f"{infer(question).kind}: {question[-250:]!r}" for question in questions if not right(infer(question).kind)
    ]
    return Row(f"kind: {name}", len(questions) - len(wrong), len(questions), wanted, tuple(wrong))


async def measure(data: Path, records: Path | None, aside: bool) -> list[Row]:
    equality = Equality()
    try:
        rows: list[Row] = []
        if records is not None:
            rows += await labelled(records, False, equality)
            rows += await labelled(records, True, equality) if aside else []
        rows += [await solutions(data, "test", equality), await solutions(data, "train", equality)]
        return [*rows, await competition(data, equality), *kinds(data)]
    finally:
        await equality.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--records", type=Path, help="outputs of a real model, behind the labels")
    parser.add_argument("--aside", action="store_true", help="count the half that is set aside too")
    parser.add_argument("--errors", action="store_true", help="print what was not read as wanted")
    asked = parser.parse_args()
    rows = asyncio.run(measure(asked.data, asked.records, asked.aside))
    print("| what | right | of | share | wanted |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.right:,} | {row.of:,} | {100 * row.right / row.of:.1f} % | {row.wanted} |")
    for row in rows if asked.errors else ():
        print(f"\n{row.name}", *row.wrong, sep="\n  ")


if __name__ == "__main__":
    main()
