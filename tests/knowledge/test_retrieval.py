"""Search by words and by meaning, and the mathematics of their fusion."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineError, SetupError
from reason_engine.knowledge import Library
from reason_engine.knowledge.library import K, WordIndex, fuse, nearest, terms
from reason_engine.types import ScoreRequest, Scores

FACTS = (
    "The red box holds 34 stamps.",
    "Room 12 belongs to Anna.",
    "The train to Tervel leaves from platform 7.",
    "Anna keeps 5 marbles and the box of Ben.",
)


async def opened(folder: Path, facts=FACTS, **more) -> Library:
    for number, fact in enumerate(facts):
        (folder / f"{number}.txt").write_text(fact)
    library = Library(folder, **more)
    await library.open()
    return library


@pytest.mark.parametrize(
    ("question", "file"),
    [
        ("How many stamps does the red box hold?", "0.txt:1"),
        ("Which ROOMS belong to anna?", "1.txt:1"),
        ("From which platform does the train to Tervel leave?", "2.txt:1"),
    ],
)
async def test_the_passage_that_answers_comes_first(tmp_path: Path, question: str, file: str) -> None:
    library = await opened(tmp_path)
    found = await library.retrieve(question, 2)
    assert found[0].source == file and len(found) == 2 and found[0].score > found[1].score > 0


@pytest.mark.parametrize("question", ["", "xyzzy", "!!", "\0", "🙂" * 5000])
async def test_nothing_in_common_is_nothing_found(tmp_path: Path, question: str) -> None:
    assert await (await opened(tmp_path)).retrieve(question, 4) == []


async def test_an_empty_folder_finds_nothing(tmp_path: Path) -> None:
    for facts in ((), ("...",)):
        assert await (await opened(tmp_path, facts)).retrieve("box", 4) == []


async def test_before_it_is_open_nothing_is_found(tmp_path: Path) -> None:
    assert await Library(tmp_path).retrieve("box", 4) == []


def test_words_are_found_in_every_form_and_script() -> None:
    assert terms("Boxes, cities ﬁsh GLASS; bus_stop 7") == ["boxe", "city", "fish", "glass", "bus", "stop", "7"]
    assert terms("東京都 no 塔") == ["東京", "京都", "no", "塔"]
    assert [place for place, _ in WordIndex(["大阪の塔", "東京の塔は高い"]).rank("東京の塔", 9)] == [1, 0]


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    index = WordIndex(["box box lid", "box tin", "box jar", "rare tin"])
    assert index.rank("box rare", 4)[0][0] == 3
    assert index.rank("nothing of it", 4) == []


def test_ranks_are_fused_by_reciprocals() -> None:
    fused = dict(fuse([[0, 1, 2], [2, 0]]))
    assert fused[0] == pytest.approx(1 / (K + 1) + 1 / (K + 2))
    assert fused[2] == pytest.approx(1 / (K + 3) + 1 / (K + 1)) and fused[1] == pytest.approx(1 / (K + 2))
    assert [place for place, _ in fuse([[5, 3], [3, 5]])] == [5, 3], "a tie goes to the first that was met"


def test_the_nearest_vector() -> None:
    import numpy as np

    rows = np.eye(3, dtype=np.float32)
    assert [row for row, _ in nearest(rows, [0.0, 2.0, 1.0], 2)] == [1, 2]
    assert nearest(rows, [0.0, 0.0, 0.0], 1) == [(0, 0.0)]


EMBEDS = Capabilities(embeds=("small",))


class Embeds(Scripted):
    """Embeds by whether a text speaks of trains; a word for it in another language counts too."""

    fails = False

    async def score(self, request: ScoreRequest) -> Scores:
        assert (request.task, request.model) == ("embed", "small")
        if self.fails:
            raise EngineError("out of order")
        return Scores(tuple((1.0, 0.0) if "rain" in text or "Zug" in text else (0.0, 1.0) for text in request.inputs))


async def test_meaning_finds_what_words_do_not(tmp_path: Path) -> None:
    engine = Embeds(caps=EMBEDS)
    library = await opened(tmp_path, engine=engine, model="small")
    assert (await library.retrieve("Zug?", 1))[0].source == "2.txt:1"
    engine.fails = True
    assert await library.retrieve("Zug?", 1) == [], "words alone decide where embedding fails"


async def test_an_engine_that_does_not_embed_is_done_without(tmp_path: Path) -> None:
    engine = Embeds(caps=EMBEDS)
    engine.fails = True
    library = await opened(tmp_path, engine=engine, model="small")
    assert (await library.retrieve("red box", 1))[0].source == "0.txt:1"


async def test_a_name_that_nothing_embeds_under_keeps_it_from_opening(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"knowledge_model 'large': .* one of: small, the URL of"):
        Library(tmp_path, engine=Embeds(caps=EMBEDS), model="large")
    with pytest.raises(SetupError, match="one of: the URL of"):
        Library(tmp_path, engine=Scripted(), model="small")
