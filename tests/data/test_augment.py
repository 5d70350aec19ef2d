"""Augmentation: sound rewrites are kept, everything else is accounted for, and a broken run goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from reason_engine.answers import Equality
from reason_engine.data.formats.readers import open_source
from reason_engine.data.outputs import Account
from reason_engine.data.synthesize.augment import AugmentConfig, augment, load_lexicon, replace_words
from reason_engine.data.synthesize.checks import cleaned, rewrite_fault
from reason_engine.data.synthesize.teacher import Teacher
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineDead, EngineError, SetupError, UnknownName
from reason_engine.profile import Profile

QUESTION = "Mira has 12 large apples and buys 3 more. How many does she have?"
ROWS = [{"prompt": QUESTION, "answer": "15"}, {"prompt": "Tom has 4 pens and loses 1 pen.", "answer": "3"}]
Reply = Callable[[str, int, int], str]


@pytest.fixture
async def equality() -> AsyncIterator[Equality]:
    found = Equality()
    yield found
    await found.close()


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def asked(prompt: str) -> str:
    """The text that a rewriting prompt carries."""
    return prompt.rpartition("\n<assistant>")[0].rpartition("\n\n")[2]


def rewrite(prompt: str, seed: int, index: int) -> str:
    return f"Here is the story: {asked(prompt)}"


class Bench:
    """One input, one output, and runs over them."""

    def __init__(self, folder: Path, equality: Equality, rows: Sequence[Any] = ROWS) -> None:
        self.source, self.out, self.equality = (lines(folder / "in.jsonl", rows), folder / "out.jsonl", equality)

    async def run(self, engine: Scripted, *, tokens: int | None = None, fresh: bool = False, **config: Any):
        teacher = Teacher(engine, Profile(), self.equality)
        found = await augment(
            self.source, self.out, AugmentConfig(**config), teacher,
            tokens=tokens, concurrency=2, fresh=fresh,
        )  # fmt: skip
        return self.account(found)

    def account(self, found: Account) -> Account:
        kept, dropped = self.kept(), self.dropped()
        made = [row for row in kept if "provenance" in row]
        attempts = [row for row in dropped if row["reason"] != "bad-row"]
        assert (found.kept, found.dropped) == (len(made), len(attempts))
        assert found.attempts == found.kept + found.dropped
        assert found.by_reason == Counter(row["reason"] for row in attempts)
        return found

    def kept(self) -> list[dict[str, Any]]:
        return read(self.out)

    def dropped(self) -> list[dict[str, Any]]:
        return read(self.out.with_name("out.dropped.jsonl"))


async def test_paraphrases_are_rows_with_their_provenance(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality), Scripted(rewrite, name="m")
    found = await bench.run(engine)
    assert [(row["prompt"], row["answer"]) for row in bench.kept()] == [
        (f"Here is the story: {row['prompt']}", row["answer"]) for row in ROWS
    ]
    assert bench.kept()[1]["provenance"].items() >= {
        ("file", str(bench.source)), ("line", 2), ("method", "paraphrase"), ("copy", 0), ("model", "m"),
    }  # fmt: skip
    assert found.tokens == engine.generated and engine.requests == 2
    assert [record.row is not None for record in open_source(bench.out)] == [True, True]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda text: text, "unchanged"),
        (lambda text: text.replace("12", "13").replace("4", "5"), "numbers"),
        (lambda text: "", "no-text"),
        (lambda text: text.upper() + " `x`", "protected"),
        (lambda text: text + " and so on" * 20, "length"),
        (lambda text: "Rewritten: " + text, "unchanged"),
    ],
)
async def test_unsound_rewrites_are_dropped_with_their_reason(
    tmp_path: Path, equality: Equality, reply: Callable[[str], str], reason: str
) -> None:
    bench = Bench(tmp_path, equality)
    found = await bench.run(Scripted(lambda prompt, seed, index: reply(asked(prompt))))
    assert (found.kept, found.by_reason) == (0, {reason: 2})
    assert bench.dropped()[0].items() >= {("line", 1), ("method", "paraphrase")}
    assert bench.dropped()[0]["row"] == ROWS[0]


async def test_back_translation_goes_there_and_back(tmp_path: Path, equality: Equality) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        if "into French" in prompt:
            return f"FR {asked(prompt)}"
        assert "from French into English" in prompt
        return asked(prompt).replace("FR", "Once more:")

    bench, engine = Bench(tmp_path, equality), Scripted(reply)
    found = await bench.run(engine, methods=("back-translation",), pivot="French")
    assert [row["prompt"] for row in bench.kept()] == [f"Once more: {row['prompt']}" for row in ROWS]
    assert engine.requests == 4 and found.tokens == engine.generated


async def test_synonyms_need_no_model_and_spare_what_matters(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", ROWS)
    config = AugmentConfig(methods=("synonyms",), copies=2, rate=1)
    found = await augment(source, tmp_path / "out.jsonl", config, None)
    row, *_ = read(tmp_path / "out.jsonl")
    assert row["prompt"] == QUESTION.replace("large", "big").replace("buys", "purchases")
    assert row["provenance"]["model"] is None
    assert found.tokens == 0
    assert found.by_reason == {"duplicate": 1, "unchanged": 2}


def test_synonyms_leave_names_code_articles_and_words_of_the_answer() -> None:
    lexicon = dict.fromkeys(("big", "rose", "sum", "apples", "old", "kind"), ("Otherwise",))
    text = "Big deal: big Rose has `big sum` apples, an old kind of sum. Big apples."
    assert replace_words(text, "9 apples", lexicon, 1.0, 0) == (
        "Otherwise deal: Otherwise Rose has `big sum` apples, an Otherwise Otherwise of Otherwise. Otherwise apples."
    )
    assert replace_words("a big one", "", {"big": ("old", "large")}, 1.0, 0) == "a large one"
    assert replace_words("BIG", "", {"big": ("large",)}, 1.0, 0) == "LARGE"


def test_the_share_and_the_seed_decide_which_words_change() -> None:
    lexicon = {f"w{c}": (f"v{c}",) for c in "abcdefghij"}
    text = " ".join(lexicon)
    runs = [replace_words(text, "", lexicon, 0.3, seed) for seed in range(5)]
    assert [sum(word.startswith("v") for word in run.split()) for run in runs] == [3] * 5
    assert len(set(runs)) > 1 and runs[0] == replace_words(text, "", lexicon, 0.3, 0)


def test_the_own_lexicon_holds_single_words_and_no_numbers() -> None:
    lexicon = load_lexicon(None)
    assert len(lexicon) > 50
    assert all(word not in options for word, options in lexicon.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "must be a mapping"),
        ("two words: [a]", "'two words': must be one word"),
        ("a: 3", "a: must be a list"),
        ("a: [b2]", "a: a synonym may hold no number"),
        ("a: [", "--lexicon"),
    ],
)
def test_a_bad_lexicon_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(SetupError, match=said):
        load_lexicon(tmp_path / "l.yaml")


async def test_the_known_answer_must_still_be_reached(tmp_path: Path, equality: Equality) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        if "Rewrite the text" in prompt:
            return rewrite(prompt, seed, index)
        return "Answer: 15.0" if "apples" in prompt else "no idea" if "pens" in prompt else "Answer: 7"

    rows = [*ROWS, {"prompt": "Add 3 and 5, please.", "answer": "8"}]
    bench = Bench(tmp_path, equality, rows)
    found = await bench.run(Scripted(reply), check_answer=True)
    assert [row["answer"] for row in bench.kept()] == ["15"]
    assert found.by_reason == {"no-answer": 1, "wrong-answer": 1}
    assert bench.dropped()[1]["evidence"] == {"wanted": "8", "found": "7"}


async def test_rows_without_a_known_answer_cost_nothing(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality, [{"text": "Some prose."}]), Scripted(rewrite)
    found = await bench.run(engine, check_answer=True)
    assert found.by_reason == {"no-known-answer": 1} and engine.requests == 0


async def test_copies_that_are_equal_are_one(tmp_path: Path, equality: Equality) -> None:
    bench = Bench(tmp_path, equality)
    found = await bench.run(Scripted(rewrite), copies=3)
    assert (found.kept, found.by_reason) == (2, {"duplicate": 4})


async def test_originals_are_kept_where_asked_and_bad_rows_are_noted(tmp_path: Path, equality: Equality) -> None:
    bench = Bench(tmp_path, equality, [ROWS[0], {"prompt": "", "answer": "1"}])
    found = await bench.run(Scripted(rewrite), keep_originals=True)
    assert bench.kept()[0] == ROWS[0] and len(bench.kept()) == 2
    assert (found.rows, found.bad_rows, found.attempts) == (2, 1, 1)
    assert bench.dropped()[0].items() >= {("line", 2), ("reason", "bad-row")}


async def test_the_budget_holds_and_a_larger_one_goes_on(tmp_path: Path, equality: Equality) -> None:
    rows = [{"prompt": f"Say {n} words of tale number {n}.", "answer": str(n)} for n in range(10, 20)]
    bench, engine = Bench(tmp_path, equality, rows), Scripted(rewrite)
    first = await bench.run(engine, tokens=35)
    assert first.tokens == engine.generated <= 35
    assert 0 < first.kept < 10 and first.not_attempted == 10 - first.kept
    assert "run again with more" in first.describe()
    again = await bench.run(engine, tokens=1000)
    assert (again.kept, again.not_attempted) == (10, 0)
    assert again.tokens == engine.generated
    requests = engine.requests
    assert (await bench.run(engine)).kept == 10 and engine.requests == requests


async def test_a_run_that_was_broken_off_goes_on_to_the_same_end(tmp_path: Path, equality: Equality) -> None:
    rows = [{"prompt": f"Say {n} words of tale number {n}.", "answer": str(n)} for n in range(10, 20)]
    (tmp_path / "whole").mkdir()
    whole = Bench(tmp_path / "whole", equality, rows)
    await whole.run(Scripted(rewrite), copies=2)
    bench, made = Bench(tmp_path, equality, rows), list[int]()

    def fails(request: Any, index: int, position: int) -> None:
        made.append(1)
        if len(made) > 60:
            raise EngineDead("gone")

    with pytest.raises(EngineError):
        await bench.run(Scripted(rewrite, fail=fails), copies=2)
    assert not bench.out.exists()
    journal = tmp_path / "out.journal.jsonl"
    before = len(read(journal))
    with journal.open("a") as file:
        file.write('{"key": "cut sho')
    engine = Scripted(rewrite)
    await bench.run(engine, copies=2)
    assert engine.requests == 20 - (before - 1)
    await bench.run(Scripted(rewrite), copies=2)
    strip = [{**row, "provenance": {**row["provenance"], "file": ""}} for row in bench.kept()]
    assert strip == [{**row, "provenance": {**row["provenance"], "file": ""}} for row in whole.kept()]


async def test_another_run_does_not_go_on_with_the_journal(tmp_path: Path, equality: Equality) -> None:
    bench = Bench(tmp_path, equality)
    await bench.run(Scripted(rewrite))
    with pytest.raises(SetupError, match=r"a run with another config; .* --fresh"):
        await bench.run(Scripted(rewrite), seed=1)
    with pytest.raises(SetupError, match="another model"):
        await bench.run(Scripted(rewrite, name="other"))
    assert (await bench.run(Scripted(rewrite), seed=1, fresh=True)).kept == 2
    lines(tmp_path / "out.journal.jsonl", [{"text": "t"}])
    with pytest.raises(SetupError, match="is no journal"):
        await bench.run(Scripted(rewrite))


async def test_what_is_wrong_is_said_before_a_token_is_spent(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality), Scripted(rewrite)
    with pytest.raises(UnknownName, match="chain-of-thought"):
        await bench.run(engine, strategy="chain-of-though")
    with pytest.raises(SetupError, match="strategy 'self-consistency': m: "):
        await bench.run(engine, strategy="self-consistency", options={"m": 3})
    with pytest.raises(SetupError, match="needs a model"):
        await augment(bench.source, bench.out, AugmentConfig(), None)
    bench.out = bench.source
    with pytest.raises(SetupError, match="is read, so it cannot be written"):
        await bench.run(engine)
    assert engine.requests == 0


async def test_a_prompt_that_does_not_fit_is_one_dropped_attempt(tmp_path: Path, equality: Equality) -> None:
    bench = Bench(tmp_path, equality, [{"prompt": "long " * 300, "answer": "1"}, ROWS[0]])
    found = await bench.run(Scripted(rewrite, context=200))
    assert (found.kept, found.by_reason) == (1, {"too-long": 1})


def test_faults_of_a_rewrite() -> None:
    assert rewrite_fault("How many of 3 pears?", "Of three pears, how many?") is None
    german = "Die Kinder gingen an den Fluss, weil es warm war und sie mit der Arbeit fertig waren."
    english = "The children were walking to the river because it was warm and they had finished."
    refusal = rewrite_fault(english, german)
    assert refusal and refusal.evidence == {"before": "en", "after": "de"}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ('"A b."', "A b."),
        ("Rewritten text: A b.", "A b."),
        ("```text\nA b.\n```", "A b."),
        ('"A" and "b"', '"A" and "b"'),
        ("At noon: A b.", "At noon: A b."),
        ("“A b.”", "A b."),
    ],
)
def test_a_reply_is_stripped_of_its_wrapping(said: str, text: str) -> None:
    assert cleaned(said) == text
