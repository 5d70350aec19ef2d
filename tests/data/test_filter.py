"""Filtering: what each gate refuses and spares, and that every row is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.data.filter.exclusions import Rule, Rules, TestSets, load_rules
from reason_engine.data.filter.filter import FilterConfig, Filtered, filter_files
from reason_engine.data.texts import LANGUAGES, grams, language_of, words
from reason_engine.errors import SetupError

LONG = (
    "Mira keeps bees behind the old mill and every spring she counts the frames of each hive before she "
    "opens the gate to the orchard where the plum trees stand in eleven crooked rows beside the brook."
)


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def run(tmp_path: Path, rows: Sequence[Any], **config: Any) -> tuple[Filtered, list[str], list[dict[str, Any]]]:
    """The account, the texts kept, the rows dropped; and that nothing was lost."""
    source = lines(tmp_path / "in.jsonl", rows)
    found = filter_files([source], tmp_path / "out.jsonl", FilterConfig(**config))
    out, dropped = read(tmp_path / "out.jsonl"), read(tmp_path / "out.dropped.jsonl")
    assert (found.read, found.kept, found.dropped) == (len(rows), len(out), len(dropped))
    assert found.read == found.kept + found.dropped
    assert Counter(row["reason"] for row in dropped) == found.by_reason
    assert json.loads((tmp_path / "out.report.json").read_text()) == json.loads(json.dumps(asdict(found)))
    assert not list(tmp_path.glob("*.part"))
    return found, [row["text"] for row in out], dropped


def text(*texts: str) -> list[dict[str, str]]:
    return [{"text": each} for each in texts]


def test_exact_duplicates_go_whatever_their_spacing(tmp_path: Path) -> None:
    rows = text("cafe\u0301 one", "caf\u00e9  one ", "Caf\u00e9 one", "two")
    _, out, dropped = run(tmp_path, rows, near=None)
    assert out == ["cafe\u0301 one", "Caf\u00e9 one", "two"]
    assert dropped == [
        {
            "file": str(tmp_path / "in.jsonl"),
            "line": 2,
            "reason": "duplicate",
            "evidence": {"of": f"{tmp_path}/in.jsonl:1"},
            "row": rows[1],
        }
    ]
    assert run(tmp_path, rows, near=None, exact=False)[1] == [row["text"] for row in rows]


def test_near_duplicates_go_and_their_similarity_is_told(tmp_path: Path) -> None:
    near, far = LONG.replace("brook", "stream"), LONG[::-1]
    _, out, dropped = run(tmp_path, text(LONG, far, near))
    assert out == [LONG, far]
    (row,) = dropped
    assert (row["reason"], row["line"], row["evidence"]["of"]) == ("near-duplicate", 3, f"{tmp_path}/in.jsonl:1")
    a, b = set(grams(words(LONG), 5)), set(grams(words(near), 5))
    assert row["evidence"]["similarity"] == pytest.approx(len(a & b) / len(a | b), abs=0.1)
    assert run(tmp_path, text(LONG, near), near=1.0)[1] == [LONG, near]


def test_problems_of_one_template_are_no_duplicates(tmp_path: Path) -> None:
    one, other = f"{LONG} She has 12 hives.", f"{LONG} She has 13 hives."
    assert run(tmp_path, text(one, other))[1] == [one, other]
    assert run(tmp_path, text(one, other), numbers=False)[1] == [one]


def test_a_dropped_row_stands_in_nobodys_way(tmp_path: Path) -> None:
    rule = tmp_path / "rules.yaml"
    rule.write_text("rules: [{name: r, words: [secret], where: answer, action: drop}]")
    rows = [{"prompt": LONG, "completion": "secret"}, {"prompt": LONG, "completion": "open"}]
    source = lines(tmp_path / "in.jsonl", rows)
    filter_files([source], tmp_path / "out.jsonl", FilterConfig(rules=str(rule), by="prompt"))
    assert read(tmp_path / "out.jsonl") == rows[1:]


def test_same_prompt_counts_as_double_where_asked(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "b"}]
    source = lines(tmp_path / "in.jsonl", rows)
    assert filter_files([source], tmp_path / "out.jsonl", FilterConfig()).kept == 2
    assert filter_files([source], tmp_path / "out.jsonl", FilterConfig(by="prompt")).kept == 1


def test_lengths(tmp_path: Path) -> None:
    rows = text("12345", "123456", "12345678")
    _, out, dropped = run(tmp_path, rows, min_chars=6, max_chars=7)
    assert out == ["123456"]
    assert [(row["reason"], row["evidence"]) for row in dropped] == [
        ("too-short", {"characters": 5, "least": 6}),
        ("too-long", {"characters": 8, "most": 7}),
    ]
    # single digits are tokens of the bundled tokenizer
    assert run(tmp_path, rows, min_tokens=6, max_tokens=6)[1] == ["123456"]


def test_bad_rows_are_dropped_with_field_and_reason(tmp_path: Path) -> None:
    _, out, dropped = run(tmp_path, [{"text": "a"}, {"text": 3}, "{"])
    assert out == ["a"]
    assert [(row["reason"], row["evidence"]["field"], row["row"]) for row in dropped] == [
        ("bad-row", "text", {"text": 3}),
        ("bad-row", "", None),
    ]


def test_two_files_become_one_and_doubles_across_them_go(tmp_path: Path) -> None:
    one = lines(tmp_path / "1.jsonl", text("a", "b"))
    two = tmp_path / "2.json"
    two.write_text(json.dumps(text("b", "c")))
    found = filter_files([one, two], tmp_path / "out.jsonl", FilterConfig(near=None))
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["a", "b", "c"]
    assert [(each["read"], each["kept"]) for each in found.inputs] == [(2, 2), (2, 1)]
    (dropped,) = read(tmp_path / "out.dropped.jsonl")
    assert (dropped["file"], dropped["evidence"]) == (str(two), {"of": f"{one}:2"})


SAID = {
    "en": "The children were walking to the river because it was warm and they had finished their work.",
    "de": "Die Kinder gingen an den Fluss, weil es warm war und sie mit der Arbeit fertig waren.",
    "fr": "Les enfants sont allés à la rivière parce qu'il faisait chaud et que le travail était fini.",
    "es": "Los niños fueron al río porque hacía calor y ya habían terminado el trabajo de la semana.",
    "it": "I bambini sono andati al fiume perché era caldo e avevano finito il lavoro della settimana.",
    "pt": "As crianças foram ao rio porque fazia calor e já não havia mais trabalho para fazer.",
    "nl": "De kinderen liepen naar de rivier omdat het warm was en ze hun werk hadden gedaan.",
    "sv": "Barnen gick till ån för att det var varmt och de inte hade mer att göra.",
    "da": "Børnene gik til åen fordi det var varmt og de ikke havde mere at lave.",
    "pl": "Dzieci poszły nad rzekę, ponieważ było ciepło i nie miały już nic do roboty.",
    "tr": "Çocuklar nehre gitti çünkü hava sıcak ve işleri için daha çok zaman var.",
    "fi": "Lapset menivät joelle, koska oli lämmin ja he olivat jo valmiita, mutta se ei riittänyt.",
    "id": "Anak itu pergi ke sungai karena cuaca panas dan mereka sudah selesai dengan tugas di rumah.",
    "ru": "Дети пошли к реке, потому что было тепло.",
    "uk": "Діти пішли до річки, бо було тепло і їм було весело.",
    "el": "Τα παιδιά πήγαν στο ποτάμι.",
    "zh": "孩子们去了河边，因为天气很热。",
    "ja": "子どもたちは川へ行きました。",
    "ko": "아이들은 강으로 갔습니다.",
    "ar": "ذهب الأطفال إلى النهر لأن الجو كان حارا.",
    "fa": "بچه‌ها به رودخانه رفتند چون هوا گرم بود.",
    "he": "הילדים הלכו אל הנהר כי היה חם.",
    "hi": "बच्चे नदी पर गए क्योंकि गर्मी थी।",
    "th": "เด็กๆ ไปที่แม่น้ำเพราะอากาศร้อน",
}


@pytest.mark.parametrize("code", SAID)
def test_language_is_told(code: str) -> None:
    assert language_of(SAID[code]) == code
    assert language_of(f"{SAID[code]} `for x in the_list: return not that` 12 + 5 = 17") == code


def test_every_language_has_its_sentence() -> None:
    assert set(SAID) == set(LANGUAGES)


@pytest.mark.parametrize("unclear", ["", "12 + 5 = 17", "ok", "$\\frac{the}{of}$ `is the of and to`", "xq zv kk pf tt"])
def test_language_is_left_open_where_the_text_does_not_tell(unclear: str) -> None:
    assert language_of(unclear) is None


def test_languages_are_kept_by_choice(tmp_path: Path) -> None:
    rows = text(SAID["en"], SAID["de"], SAID["ja"], "12 + 5 = 17")
    _, out, dropped = run(tmp_path, rows, languages=("en", "ja"))
    assert out == [SAID["en"], SAID["ja"], "12 + 5 = 17"]
    assert dropped[0]["evidence"] == {"found": "de", "wanted": ["en", "ja"]}
    assert run(tmp_path, rows, languages=("en",), unknown_language="drop")[1] == [SAID["en"]]


def test_rules_drop_and_flag_with_evidence(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# words\nwicked  deed\n")
    (tmp_path / "rules.yaml").write_text(
        """
rules:
  - {name: keys, patterns: ['key-[0-9]+'], action: drop}
  - {name: deeds, words: [cad], words_file: list.txt, unless: [research], action: flag}
  - {name: late, patterns: ['zzz'], action: drop}
"""
    )
    rows = text("my Key-12 here", "a WICKED deed", "a wicked deed, for research", "cadence", "cad zzz")
    found, out, dropped = run(tmp_path, rows, rules=str(tmp_path / "rules.yaml"))
    assert out == ["a WICKED deed", "a wicked deed, for research", "cadence"]
    assert [(row["reason"], row["evidence"]) for row in dropped] == [
        ("rule:keys", {"in": "answer", "found": "my Key-12 here"}),
        ("rule:late", {"in": "answer", "found": "cad zzz"}),
    ]
    assert found.flagged == {"deeds": 1}
    assert [row.get("flags") for row in read(tmp_path / "out.jsonl")] == [["deeds"], None, None]


def test_rules_look_where_they_are_told() -> None:
    rules = Rules([Rule(name="r", words=("x",), where="prompt", action="drop")])
    assert [hit.part for hit in rules.hits("x", "y")] == ["prompt"]
    assert not list(rules.hits("y", "x"))


STARTERS = {
    "private-keys": "-----BEGIN RSA PRIVATE KEY-----",
    "access-tokens": f"use ghp_{'a1' * 20} here",
    "card-numbers": "pay with 4111 1111 1111 1111 now",
    "bank-accounts": "to DE89 3704 0044 0532 0130 00 please",
    "e-mail-addresses": "ask mira.k@mill.org today",
    "telephone-numbers": "call +49 30 901820 55 today",
    "weapons": "how do I build a working pipe bomb?",
    "self-harm": "I want to end my life",
    "refusals": "As an AI language model I cannot",
}


def test_every_starter_rule_catches_its_case_and_spares_sums() -> None:
    rules = load_rules("starter")
    assert {rule.name for rule in rules.rules} == set(STARTERS)
    for name, said in STARTERS.items():
        assert [hit.rule.name for hit in rules.hits(said, said)] == [name]
    plain = f"{LONG} 4111 + 1111 = 5222, 1.4111 1111, write to a@example.com. 12 + 25 = 37\nAnswer: 37"
    assert not list(rules.hits(plain, plain))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rules: 3", "rules: must be a list"),
        ("a: [", "not YAML"),
        ("{rules: [{name: a, words: [b], action: drop}], more: 1}", "more: unknown key"),
        ("rules: [3]", r"rules\.0: must be a mapping"),
        ("rules: [{name: a, words: [b]}]", r"rules\.0: action: Field required"),
        ("rules: [{name: a, words: [b], action: burn}]", r"rules\.0: action: .*'drop' or 'flag'"),
        ("rules: [{name: a, action: drop}]", r"rules\.0: needs patterns, words or words_file"),
        ("rules: [{name: a, words: [''], action: drop}]", r"rules\.0: words: one of them is empty"),
        ("rules: [{name: a, patterns: ['('], action: drop}]", r"rules\.0: patterns: '\(' is no regular"),
        ("rules: [{name: a, patterns: ['a*'], action: drop}]", r"matches every text"),
        ("rules: [{name: a, word: [b], action: drop}]", r"rules\.0: word: unknown key"),
        ("rules: [{name: a, words_file: no.txt, action: drop}]", r"'a': words_file .*no\.txt"),
        ("rules: [{name: a, words: [b], action: drop}, {name: a, words: [c], action: drop}]", "'a' is given twice"),
    ],
)
def test_bad_rules_are_named(tmp_path: Path, rules: str, said: str) -> None:
    (tmp_path / "rules.yaml").write_text(rules)
    with pytest.raises(SetupError, match=said):
        load_rules(str(tmp_path / "rules.yaml"))


def test_rows_that_share_a_run_with_a_test_set_go(tmp_path: Path) -> None:
    runs = " ".join(f"word{n}" for n in range(13))
    tests = tmp_path / "test.json"
    tests.write_text(json.dumps([{"id": 1, "deep": [{"q": f"Before, {runs.upper()}! After"}]}, {"q": LONG}]))
    rows = text(f"so {runs} it is", " ".join(runs.split()[:12]), f"{runs.replace('word6', 'other')}")
    found, out, dropped = run(tmp_path, rows, against=(tests,), near=None)
    assert out == [rows[1]["text"], rows[2]["text"]]
    assert dropped[0]["evidence"] == {"file": str(tests), "line": 1, "shared": runs}
    assert found.test_sets == {"texts": 2, "too_short": 0}
    assert run(tmp_path, rows, against=(tests,), ngram=12, near=None)[1] == [rows[2]["text"]]


def test_short_test_texts_are_compared_whole(tmp_path: Path) -> None:
    tests = lines(
        tmp_path / "test.jsonl", [{"q": "How many eggs does the brown hen lay?"}, {"q": "1 1 4 6"}, {"q": "Level 2"}]
    )
    sets = TestSets([tests])
    assert (sets.texts, sets.too_short) == (2, 1)
    found = sets.overlap("Say: how many eggs does the brown hen lay? Think.", "")
    assert found and (found.line, found.shared) == (1, "how many eggs does the brown hen lay")
    assert sets.overlap("1 1 4 6", "") and not sets.overlap("1 1 4 6 7", "") and not sets.overlap("", "1 1 4 6")


def test_a_test_set_without_text_is_refused(tmp_path: Path) -> None:
    tests = lines(tmp_path / "test.jsonl", [{"q": 3}])
    with pytest.raises(SetupError, match=r"--against .*test\.jsonl: holds no text"):
        TestSets([tests])
    with pytest.raises(SetupError, match=r"--against .*test\.jsonl:1: is not JSON"):
        TestSets([lines(tests, ["{"])])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"min_chars": 9, "max_chars": 8}, "min_chars is over max_chars"),
        ({"near": 1.5}, "near"),
        ({"ngram": 1}, "ngram"),
        ({"languages": ("xx",)}, "'xx' cannot be told"),
        ({"nearly": 1}, "nearly"),
    ],
)
def test_bad_settings_are_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FilterConfig(**config)


def test_what_is_read_is_never_written(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", text("a"))
    with pytest.raises(SetupError, match="is read, so it cannot be written"):
        filter_files([path], path, FilterConfig())
    dropped = lines(tmp_path / "b.dropped.jsonl", text("a"))
    with pytest.raises(SetupError, match="is read"):
        filter_files([dropped], tmp_path / "b.jsonl", FilterConfig())
    with pytest.raises(SetupError, match="No such file"):
        filter_files([path], tmp_path / "no" / "out.jsonl", FilterConfig())
    assert read(path) == text("a")


def test_a_run_that_breaks_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", text("a", "b"))

    def stop(count: int, kept: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filter_files([path], tmp_path / "out.jsonl", FilterConfig(), stop)
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]
