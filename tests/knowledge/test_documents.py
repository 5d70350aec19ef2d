"""A folder of documents, good and bad: what is read becomes passages, what is not is named with the reason."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from reason_engine.errors import SetupError
from reason_engine.knowledge import Library, documents
from reason_engine.knowledge.documents import LONGEST, OVERLAP, markdown, pieces, plain, read_folder

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R"
    b"/Resources<</Font<</F 5 0 R>>>>>>endobj\n"
    b"4 0 obj<</Length 62>>stream\nBT /F 12 Tf 9 9 Td (The red box holds 34 stamps in all.) Tj ET   \n"
    b"endstream endobj\n"
    b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n"
    b"xref\n0 6\n0000000000 65535 f \n"
    b"trailer<</Root 1 0 R/Size 6>>\nstartxref\n0\n%%EOF\n"
)


def read(root: Path) -> dict[str, documents.Read]:
    return {one.name: one for one in read_folder(root)}


def texts(one: documents.Read) -> list[str]:
    return [passage.text for passage in one.passages]


def test_each_kind_of_document_is_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "guide.md").write_text("# Returns\n\nWithin thirty days, with the receipt that came along.\n")
    (tmp_path / "notes.txt").write_bytes(b"\xef\xbb\xbfThe caf\xc3\xa9 opens at eight.")
    (tmp_path / "box.pdf").write_bytes(PDF)
    (tmp_path / "facts.csv").write_text(
        "object,subject,relation\nFrance,Paris,capital_of\n2 million,Paris,has_people\n"
    )
    (tmp_path / "facts.json").write_text(
        '[["Rome", "capital of", "Italy"], {"subject": "Oslo", "relation": "is in", "object": "Norway"}]'
    )
    (tmp_path / ".hidden.txt").write_text("secret")
    found = read(tmp_path)
    assert {name: texts(one) for name, one in found.items()} == {
        "box.pdf": ["The red box holds 34 stamps in all."],
        "facts.csv": ["Paris capital of France. Paris has people 2 million."],
        "facts.json": ["Rome capital of Italy.", "Oslo is in Norway."],
        "notes.txt": ["The café opens at eight."],
        "sub/guide.md": ["Returns: Within thirty days, with the receipt that came along."],
    }
    assert not any(one.warning for one in found.values())
    assert found["sub/guide.md"].passages[0].source == "sub/guide.md:3"
    assert found["box.pdf"].passages[0].source == "box.pdf page 1:1"


def test_bad_documents_are_skipped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "docs", tmp_path / "outside.txt"
    inside.mkdir()
    outside.write_text("not yours")
    (inside / "good.txt").write_text("The tower is tall.")
    (inside / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the sort")
    with open(inside / "huge.txt", "wb") as file:
        file.truncate(50 << 20)
    (inside / "binary.txt").write_bytes(b"text\0\1\2")
    (inside / "latin.txt").write_bytes("café".encode("latin-1"))
    (inside / "image.png").write_bytes(b"\x89PNG")
    (inside / "away.txt").symlink_to(outside)
    (inside / "here.txt").symlink_to(inside / "good.txt")
    (inside / "loop.txt").symlink_to(inside / "loop.txt")
    (inside / "folder").symlink_to(tmp_path)
    (inside / "empty.json").write_text("{}")
    (inside / "deep.json").write_text("[" * 100_000)
    (inside / "prose.csv").write_text("just, a, few, words\n")
    (inside / "some.csv").write_text("a,b,c\nonly,two\n")
    (inside / "two\nlines.exe").write_text("")
    os.mkfifo(inside / "pipe.txt")
    found = read(inside)
    said = {name: one.warning for name, one in found.items() if one.warning}
    assert sorted(found.keys() - said.keys()) == ["good.txt"], "a second name of a file is no second document"
    for name, reason in {
        "broken.pdf": "not a PDF that can be read", "huge.txt": "larger than 16 MiB", "binary.txt": "binary",
        "latin.txt": "not UTF-8 (byte 3)", "image.png": "not of a kind", "away.txt": "a link out of the folder",
        "folder": "a link to a folder", "empty.json": "no list of triples", "deep.json": "no JSON",
        "prose.csv": "no subject, relation and object", "some.csv": "1 entries without",
        "pipe.txt": "not a regular file", "two?lines.exe": "not of a kind", "loop.txt": "",
    }.items():  # fmt: skip
        assert reason in said[name], (name, said[name])
    assert texts(found["some.csv"]) == ["a b c."], "the good entries of a file stay"
    assert sum(len(one.passages) for one in found.values()) == 2


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed.txt").write_text("x")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(documents.os, "open", refuse)
    assert read(tmp_path)["closed.txt"].warning == "Permission denied"


def test_a_pdf_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PDF_SECONDS", 0.01)
    (tmp_path / "slow.pdf").write_bytes(PDF)
    assert "not read within 0.01 s" in read(tmp_path)["slow.pdf"].warning


async def test_the_library_names_what_it_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "good.txt").write_text("The tower of Tervel is 40 metres high.")
    library = Library(tmp_path)
    with caplog.at_level("INFO", "reason_engine.knowledge"):
        await library.open()
    assert library.opened and library.skipped == [("bad.txt", "not UTF-8 (byte 0)")]
    assert "bad.txt: not UTF-8" in caplog.text and "1 passages of 2 files" in caplog.text


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("x")])
def test_a_folder_that_is_none_is_one_clear_line(tmp_path: Path, make) -> None:
    path = tmp_path / "nowhere"
    make(path)
    with pytest.raises(SetupError, match=r"--knowledge .*nowhere: (does not exist|is not a folder)"):
        Library(path)


def test_markdown_is_cut_at_headings_and_not_inside_fences() -> None:
    text = (
        "Before any heading there is a line of some length, long enough to stand alone as it is.\n\n"
        "## Boxes ##\nThe red box is full.\n\nThe blue one is not.\n"
        "```\n# no heading\n```\n# Trains\nThey leave at nine."
    )
    found = list(markdown(text, "a.md"))
    assert [passage.text for passage in found] == [
        "Before any heading there is a line of some length, long enough to stand alone as it is.",
        "Boxes: The red box is full. The blue one is not. ``` # no heading ```",
        "Trains: They leave at nine.",
    ]
    assert [passage.source for passage in found] == ["a.md:1", "a.md:4", "a.md:11"]


def test_long_paragraphs_overlap_a_little_and_lose_nothing() -> None:
    sentences = [f"Sentence number {i} says something of its own." for i in range(60)]
    cut = pieces(" ".join(sentences))
    assert all(len(piece) <= LONGEST for piece in cut) and len(cut) > 4
    assert all(any(sentence in piece for piece in cut) for sentence in sentences)
    for before, after in itertools.pairwise(cut):
        shared = next(n for n in range(OVERLAP + 1, -1, -1) if before.endswith(after[:n]))
        assert 0 < shared <= OVERLAP
    assert all(len(piece) <= LONGEST for piece in pieces("x" * 5000 + " " + "word " * 900))
    assert "".join(pieces("x" * 5000)) == "x" * 5000


def test_short_paragraphs_are_joined() -> None:
    assert [p.text for p in plain("One.\n\nTwo.\n\n" + "x" * 90 + "\n\nThree.", "t")] == [
        f"One. Two. {'x' * 90}",
        "Three.",
    ]


def test_triples_of_one_subject_stand_together(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        json.dumps({"triples": [["A", "is", 1], ["B", "is", 2.5], ["A", "has", "C."], ["A", True, {}]]})
    )
    one = read(tmp_path)["t.json"]
    assert texts(one) == ["A is 1. A has C.", "B is 2.5."] and "1 entries" in one.warning
