"""Text token by token: characters that span tokens, stop strings that span chunks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from reason_engine.engines.text import StopFinder, Vocabulary
from tests.models import write_tokenizer

calm = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def run(finder: StopFinder, pieces: list[str]) -> tuple[str, str | None]:
    shown = ""
    for piece in pieces:
        text, found = finder.feed(piece)
        shown += text
        if found is not None:
            return shown, found
    return shown + finder.finish(), None


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "found"),
    [
        (["ab", "cd"], (), "abcd", None),
        (["ab", "STOP", "cd"], ("STOP",), "ab", "STOP"),
        (["abS", "T", "OPcd"], ("STOP",), "ab", "STOP"),
        (["abS", "T", "Xcd"], ("STOP",), "abSTXcd", None),
        (["ababac"], ("abac",), "ab", "abac"),
        (["aba", "bac"], ("abac",), "ab", "abac"),
        (["x\n", "\ny"], ("\n\n", "y"), "x", "\n\n"),
        (["one two"], ("two", "one"), "", "one"),
        (["ab"], ("abc",), "ab", None),
    ],
)
def test_stops(pieces: list[str], stops: tuple[str, ...], shown: str, found: str | None) -> None:
    assert run(StopFinder(stops), pieces) == (shown, found)


def test_an_included_stop_is_shown() -> None:
    assert run(StopFinder(("ST",), include=True), ["aS", "Tb"]) == ("aST", "ST")


@calm
@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_stops_do_not_depend_on_how_the_text_is_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ends = [(i + len(s), i) for s in stops if (i := text.find(s)) >= 0]
    shown, found = run(StopFinder(tuple(stops)), pieces)
    if not ends:
        assert (shown, found) == (text, None)
    else:
        assert found in stops
        assert text.startswith(shown + (found or ""))
        assert not any(s in shown for s in stops)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@calm
@given(st.text(max_size=40))
def test_bytes_become_characters_only_when_whole(byte_level: Tokenizer, text: str) -> None:
    out = Vocabulary(byte_level).detokenizer()
    pieces = [out.feed(i) for i in byte_level.encode(text, add_special_tokens=False).ids]
    assert "".join(pieces) + out.finish() == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


def test_broken_bytes_and_special_tokens(byte_level: Tokenizer) -> None:
    vocabulary = Vocabulary(byte_level)
    out = vocabulary.detokenizer()
    ids = byte_level.encode("数a", add_special_tokens=False).ids
    end = byte_level.token_to_id("<|im_end|>")
    assert out.feed(ids[0]) + out.feed(end) + out.feed(ids[-1]) == "\ufffda"
    assert out.feed(ids[0]) == ""
    assert out.finish() == "\ufffd"
    assert vocabulary.text_of(end) == "<|im_end|>"
    assert vocabulary.text_of(ids[-1]) == "a"


def test_a_tokenizer_that_marks_word_starts_keeps_the_space_of_a_continuation() -> None:
    words = {"▁one": 0, "▁two": 1, "x": 2, "<unk>": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    vocabulary = Vocabulary(tokenizer)
    fresh, after = vocabulary.detokenizer(), vocabulary.detokenizer([0])
    assert fresh.feed(0) + fresh.feed(1) == "one two"
    assert after.feed(1) == " two"


def test_control_tokens_that_are_shown_stay_in_the_text(byte_level: Tokenizer) -> None:
    end = byte_level.token_to_id("<|im_end|>")
    assert Vocabulary(byte_level).detokenizer().feed(end) == ""
    assert Vocabulary(byte_level, {"<|im_end|>"}).detokenizer().feed(end) == "<|im_end|>"
    tokenizer = Tokenizer(models.WordLevel({"▁one": 0, "▁two": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["[THINK]", "[END]"])
    out = Vocabulary(tokenizer, {"[THINK]"}).detokenizer()
    assert "".join(out.feed(token) for token in (0, 3, 1, 4)) + out.finish() == "one[THINK]two"
