"""Rule files, good and bad; and what a stream may let go, whatever way its text is cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import regex

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import SetupError
from reason_engine.serving.app import create_app
from reason_engine.serving.guard.output_filter import Holdback
from reason_engine.serving.guard.rules import Matcher, Rules, comparable, compile_rules, read_rules, search
from reason_engine.settings import Settings


def write(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


PATTERN = "{name: a, kind: pattern, pattern: x}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: [", "while parsing"),
        ("- 1", "(file): "),
        ("rule: []", "rule: unknown key; did you mean 'rules'?"),
        ("rules: [{kind: pattern, pattern: x}]", "rules.0.name: Field required"),
        ("rules: [{name: a, kind: patern, pattern: x}]", "rules.0"),
        ("rules: [{name: a, kind: pattern}]", "rules.0.pattern: Field required"),
        ("rules: [{name: a, kind: pattern, patern: x, pattern: x}]",
            "rules.0.patern: unknown key; did you mean 'pattern'?"),
        ("rules: [{name: a, kind: pattern, pattern: '(x'}]", "rules.0.pattern: not a regular expression"),
        ("rules: [{name: a, kind: pattern, pattern: 'x*'}]", "rules.0.pattern: matches the empty text"),
        ("rules: [{name: a, kind: pattern, pattern: x, longest: 0}]", "rules.0.longest: "),
        ("rules: [{name: a, kind: pattern, pattern: x, on: answer}]", "rules.0.on: "),
        ("rules: [{name: a, kind: pattern, pattern: x, action: warn}]", "rules.0.action: "),
        ("rules: [{name: a, kind: pattern, pattern: x, keys: [kiosc]}]\nkeys: {kiosk: " + "a" * 64 + "}",
            "rules.0.keys: no key is labelled 'kiosc'; did you mean 'kiosk'?"),
        ("keys: {kiosk: sk-not-a-digest}", "keys: 'kiosk' needs the SHA-256"),
        (f"rules: [{PATTERN}, {PATTERN}]", "rules.1.name: 'a' is given twice"),
        ("rules: [{name: a, kind: list}]", "rules.0.words: no word is given"),
        ("rules: [{name: a, kind: list, file: nowhere.txt}]", "rules.0.file: "),
        ("rules: [{name: a, kind: classifier, by: model, prompt: no place}]", "needs a prompt that holds {text}"),
        ("rules: [{name: a, kind: classifier, by: endpoint}]", "needs a url"),
        ("rules: [{name: a, kind: classifier, by: endpoint, url: 'file:///etc/passwd'}]", "rules.0.url: "),
        ("rules: [{name: a, kind: classifier, by: model, prompt: '{text}', threshold: 2}]", "at most 1"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SetupError) as error:
        read_rules(path)
    said = str(error.value)
    assert said.startswith(f"--guard {path}: ") and says in said and "\n" not in said
    assert "sk-not-a-digest" not in said


def test_what_an_engine_cannot_do_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = Scripted(caps=Capabilities())
    for by, more in (("model", "prompt: '{text}'"), ("head", "model: m")):
        path = write(tmp_path, f"rules: [{{name: a, kind: classifier, by: {by}, {more}}}]")
        with pytest.raises(SetupError, match=r"rules\.0\.by: this engine"):
            create_app(poor, settings=Settings(guard=path))
    path = write(tmp_path, "rules: [{name: a, kind: classifier, by: endpoint, url: 'http://x', key_env: NO_SUCH}]")
    with pytest.raises(SetupError, match=r"rules\.0\.key_env: the environment has no NO_SUCH"):
        create_app(poor, settings=Settings(guard=path))


def test_a_list_reads_its_file_beside_the_rules(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# names\nAcme Corp\n\n東京\nnaïve\n")
    found = read_rules(write(tmp_path, "rules: [{name: a, kind: list, file: words.txt, words: ['$100']}]"))
    matcher = found.matchers["a"]
    for text in ("buy acme  corp now", "ACME\nCORP", "東京都", "Naïve!", "it costs $100."):
        assert matcher.find(comparable(text)), text
    for text in ("acme corporation", "knaïve", "$1000", "names"):
        assert not matcher.find(comparable(text)), text


def matcher(pattern: str, reach: int | None) -> Matcher:
    return Matcher(pattern, regex.compile(pattern), reach)


@pytest.mark.parametrize("seed", range(40))
def test_however_a_text_is_cut_what_is_caught_was_not_let_go(seed: int) -> None:
    rng = random.Random(seed)
    matchers = [matcher(r"\bab+a\b", 6), matcher(r"(?<!\w)c\sc(?!\w)", 3)]
    text = "".join(rng.choices("abbc \u200bｂ", k=80))
    bad = [m.find(comparable(text)) for m in matchers]
    tail, shown, rest = Holdback(matchers), "", text
    while rest:
        cut = rng.randint(1, 9)
        shown, rest = shown + tail.feed(rest[:cut]), rest[cut:]
    caught = tail.finish()
    assert bool(caught) == any(bad), text
    assert text.startswith(shown) and not any(m.find(comparable(shown)) for m in matchers)
    if caught:
        first = min(span[0] for span in bad if span and span[1] - span[0] <= 6)
        assert len(comparable(shown)) <= first or not any(span and span[1] - span[0] <= 6 for span in bad)
    else:
        assert shown + tail.remainder() == text


def test_what_is_far_from_the_end_is_let_go_at_once() -> None:
    tail = Holdback([matcher("xyz", 3)])
    assert tail.feed("a" * 10) == "a" * 7 and tail.feed("x") == "a" and tail.feed("yb") == "aax"[:2]
    assert tail.finish() is None and tail.remainder() == "xyb"


def test_a_match_is_not_certain_before_what_follows_it() -> None:
    tail = Holdback([matcher(r"\bfoo\b", 3)])
    assert tail.feed("a foo") == "a " and tail.rule is None
    assert tail.feed("d") == "" or tail.rule is None
    assert tail.finish() is None
    other = Holdback([matcher(r"\bfoo\b", 3)])
    other.feed("a foo")
    assert other.finish() is not None


def test_a_longer_match_than_was_said_still_stops_at_the_end() -> None:
    tail = Holdback([matcher("x.*y", 3)])
    tail.feed("x" + "a" * 50)
    tail.feed("y b")
    assert tail.finish() == "x.*y"


def test_without_a_reach_nothing_is_let_go_before_the_end() -> None:
    tail = Holdback([matcher("x", 1), matcher("zz", None)])
    assert tail.feed("a" * 100) == "" and tail.finish() is None and tail.remainder() == "a" * 100


def test_a_search_that_takes_too_long_counts_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def search(self, *_: object, **__: object) -> None:
            raise TimeoutError

    assert search(Slow(), "abc", 1) == (1, 3)  # pyright: ignore[reportArgumentType]


def test_no_rules_are_no_rules() -> None:
    assert compile_rules(Rules()).matchers == {}
