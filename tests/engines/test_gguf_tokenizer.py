"""The tokenizers that GGUF files describe, against the tokenizers they were made of and against plain algorithms."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.checkpoint.gguf.file import GgufFile
from reason_engine.engines.checkpoint.gguf.header import read_header
from reason_engine.engines.checkpoint.gguf.splits import SPLITS
from reason_engine.engines.checkpoint.gguf.tokenizer import build_tokenizer
from reason_engine.errors import ModelLoadError
from reason_engine.types import Message
from tests.gguf_files import metadata, stored, write_file, write_gguf
from tests.models import write_model

TEXTS = [
    "", " ", "Hello, world!", "a  b\n\n c\t", "It's 1,234.5 apples; I'M sure.", "x = {'k': [1, 2]}\r\n", "日本 é ½ 🎉",
    "<|im_start|>user\nhi<|im_end|>", "\x00\x7f",
]  # fmt: skip
BYTES = [f"<0x{number:02X}>" for number in range(256)]


def described(path: Path, **entries: Any) -> Tokenizer:
    """Of a file that holds nothing else."""
    named = {"general.architecture": "llama"} | {f"tokenizer.ggml.{key}": value for key, value in entries.items()}
    made = {key: value for key, value in named.items() if value is not None}
    return build_tokenizer(read_header(write_file(path, made, {"x": np.zeros((2, 2), np.float32)})))


def byte_level(path: Path, words: list[str], merges: list[str], **entries: Any) -> Tokenizer:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    types = {"token_type": [1] * len(tokens)}
    return described(path, **({"model": "gpt2", "tokens": tokens, "merges": merges, "pre": "gpt-2"} | types | entries))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "tiny", "llama")


def test_it_is_the_tokenizer_of_the_folder(folder: Path, tmp_path: Path) -> None:
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = GgufFile(write_gguf(folder, tmp_path / "m.gguf")).tokenizer()
    for text in TEXTS:
        ids = theirs.encode(text).ids
        assert ours.encode(text).ids == ids
        assert ours.decode(ids, skip_special_tokens=False) == text
    assert ours.get_vocab() == theirs.get_vocab()


def test_the_chat_format_is_that_of_the_folder(folder: Path, tmp_path: Path) -> None:
    theirs, ours = ChatFormat.load(folder), ChatFormat.load(write_gguf(folder, tmp_path / "m.gguf"))
    turns = [Message("system", "Be brief."), Message("user", "1 + 1?")]
    assert ours.render_chat(turns) == theirs.render_chat(turns)
    assert (ours.report, ours.found, ours.specials) == ({**theirs.report, **ends(ours)}, theirs.found, theirs.specials)
    assert ours.eos_ids == {256, 258}, "the control token <|endoftext|> ends a text as well"


def ends(made: ChatFormat) -> dict[str, str]:
    return {"end of text": made.report["end of text"]}


def test_every_way_of_cutting_words_cuts_text_without_loss(tmp_path: Path) -> None:
    for number, pre in enumerate(SPLITS):
        made = byte_level(tmp_path / f"{number}.gguf", [], [], pre=pre, add_bos_token=False)
        for text in TEXTS:
            assert made.decode(made.encode(text).ids) == text, pre


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("llama-bpe", "I'Ve 12345  x!\n\n", ["I", "'Ve", "Ġ", "123", "45", "Ġ", "Ġx", "!ĊĊ"]),
        ("qwen2", "I'Ve 123 x", ["I", "'Ve", "Ġ", "1", "2", "3", "Ġx"]),
        ("smollm", "it's 123 x!!", ["it", "'s", "Ġ", "1", "2", "3", "Ġx", "!!"]),
        ("gpt-2", "it's 123 x!!", ["it", "'s", "Ġ123", "Ġx", "!!"]),
        ("default", "a+b 1234", ["a", "+", "b", "Ġ", "123", "4"]),
        ("tekken", "camelCase 12", ["camel", "Case", "Ġ", "1", "2"]),
        ("deepseek-coder", "f(x) 12\n", ["f", "(", "x", ")", "Ġ", "1", "2", "Ċ"]),
        ("deepseek-v3", "x,y 1234", ["x", ",y", "Ġ", "123", "4"]),
    ],
)
def test_words_are_cut_as_the_name_says(tmp_path: Path, pre: str, text: str, pieces: list[str]) -> None:
    made = byte_level(tmp_path / "m.gguf", [], [], pre=pre)
    assert made.pre_tokenizer is not None
    assert [piece for piece, _ in made.pre_tokenizer.pre_tokenize_str(text)] == pieces


def test_merges_are_followed_in_their_order(tmp_path: Path) -> None:
    made = byte_level(tmp_path / "m.gguf", ["ab", "bc", "abc"], ["b c", "a b", "a bc"])
    assert made.encode("abc ab").tokens == ["abc", "Ġ", "ab"]


def test_a_word_that_is_a_token_stays_whole_where_the_model_does_so(tmp_path: Path) -> None:
    words: list[str] = ["ab", "bc", "abcd"]  # abcd is not reached by merges
    assert byte_level(tmp_path / "a.gguf", words, ["b c"], pre="llama-bpe", add_bos_token=False).encode("abcd").ids == [
        258
    ]
    assert byte_level(tmp_path / "b.gguf", words, ["b c"], pre="qwen2").encode("abcd").tokens == ["a", "bc", "d"]


def test_without_a_name_words_are_cut_by_architecture(tmp_path: Path, folder: Path) -> None:
    qwen = write_model(tmp_path / "q", "qwen3")
    for model, pieces in ((qwen, ["Ġ", "1", "2", "3", "4"]), (folder, ["Ġ", "123", "4"])):
        made = GgufFile(write_gguf(model, tmp_path / "m.gguf", tokenizer__ggml__pre=None)).tokenizer()
        assert [piece for piece, _ in made.pre_tokenizer.pre_tokenize_str(" 1234")] == pieces  # pyright: ignore


def test_qwen_brings_text_into_form_c_as_its_own_tokenizer_does(tmp_path: Path) -> None:
    made = byte_level(tmp_path / "m.gguf", [], [], pre="qwen2")
    assert made.encode("e\u0301").ids == made.encode("\u00e9").ids
    made = byte_level(tmp_path / "l.gguf", [], [], pre="gpt-2")
    assert made.encode("e\u0301").ids != made.encode("\u00e9").ids


@pytest.mark.parametrize(
    ("entries", "ids"),
    [
        ({}, []),
        ({"add_bos_token": True}, [257]),
        ({"pre": "llama-bpe"}, [257]),
        ({"pre": "llama-bpe", "add_bos_token": False}, []),
        ({"add_bos_token": True, "bos_token_id": None}, []),
    ],
)
def test_a_text_begins_as_the_file_or_its_kind_says(tmp_path: Path, entries: dict[str, Any], ids: list[int]) -> None:
    own = {"bos_token_id": 257, "token_type": [1] * 257 + [3]}
    made = byte_level(tmp_path / "m.gguf", ["ab", "<b e:$A>"], ["a b"], **(own | entries))
    assert made.encode("").ids == ids
    assert made.encode("ab").ids == [*ids, 256]


def test_marked_tokens_are_found_whole(tmp_path: Path) -> None:
    types = [1] * 256 + [3, 4, 5]
    made = byte_level(tmp_path / "m.gguf", ["<|stop|>", "<tool>", "[PAD258]"], [], token_type=types)
    assert made.encode("a<|stop|><tool>[PAD258]").ids[1:3] == [256, 257]
    assert len(made.encode("[PAD258]").ids) == 8, "an unused one is not"
    assert made.decode([256, 257]) == "<tool>", "one a user defined is part of the text"


def pieces(path: Path, texts: dict[str, float], **entries: Any) -> Tokenizer:
    """SentencePiece's kind: <unk>, <s>, </s>, the bytes, then these with their scores."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *texts]
    scores = [0.0] * 259 + list(texts.values())
    types = [2, 3, 3] + [6] * 256 + [1] * len(texts)
    return described(path, **({"model": "llama", "tokens": tokens, "scores": scores, "token_type": types} | entries))


def plainly_merged(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE: of all neighbours whose join is a piece, the leftmost of the best score, until none is."""
    parts = list(text)
    while True:
        found = [(scores[a + b], -at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not found:
            return [
                p for part in parts for p in ([part] if part in scores else [f"<0x{b:02X}>" for b in part.encode()])
            ]
        at = -max(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_scores_stand_for_merges(tmp_path: Path) -> None:
    rng = random.Random(0)
    letters = ["▁", "a", "b", "c"]
    known = {letter: -100.0 - place for place, letter in enumerate(letters)}
    while len(known) < 80:
        known.setdefault("".join(rng.choices(list(known), k=2))[:8], -float(len(known)))
    made = pieces(tmp_path / "m.gguf", known)
    for _ in range(500):
        text = "".join(rng.choices("abc dé", k=rng.randint(1, 30)))
        expected = plainly_merged("▁" + text.replace(" ", "▁"), known)
        assert made.encode(text, add_special_tokens=False).tokens == expected, text
        assert made.decode(made.encode(text).ids) == text


def test_text_of_pieces_begins_with_a_space_where_the_file_says_no_other(tmp_path: Path) -> None:
    known = {"▁": -1.0, "a": -2.0, "▁a": -3.0}
    assert pieces(tmp_path / "a.gguf", known).encode("a</s>a").tokens == ["<s>", "▁a", "</s>", "▁a"]
    bare = pieces(tmp_path / "b.gguf", known, add_space_prefix=False, add_bos_token=False)
    assert bare.encode("a a").tokens == ["a", "▁a"]
    assert bare.decode(bare.encode(" a").ids) == " a"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"model": "bert"}, "a tokenizer of the kind 'bert' (tokenizer.ggml.model) cannot be built"),
        ({"model": None}, "of the kind None"),
        ({"tokens": None}, "has no tokens (tokenizer.ggml.tokens)"),
        ({"pre": "nonsense"}, "tokenizer.ggml.pre 'nonsense' is not known here"),
        ({"tokens": ["ab"] * 256}, "has no merges (tokenizer.ggml.merges)"),
        ({"merges": ["a zz"]}, "its tokenizer cannot be built"),
        ({"token_type": [1]}, "tokenizer.ggml.token_type is not one number for each of 256 tokens"),
        ({"bos_token_id": 256, "add_bos_token": True}, "tokenizer.ggml.bos_token_id is 256, which is none of its 256"),
        ({"model": "llama"}, "has no scores"),
        ({"model": "llama", "scores": [0.0] * 256}, "lacks some of <0x00>"),
        ({"model": "llama", "scores": [0.0] * 9}, "tokenizer.ggml.scores is not one number"),
    ],
)
def test_a_tokenizer_that_cannot_be_built_is_named(tmp_path: Path, entries: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        byte_level(tmp_path / "bad.gguf", [], **{"merges": [], **entries})
    assert f"{tmp_path / 'bad.gguf'}: " in str(caught.value) and said in str(caught.value)


def test_the_tokenizer_beside_the_file_comes_first(folder: Path, tmp_path: Path) -> None:
    """In a folder of the file's name, or in the file's own."""
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("x"), "isolated"), pre_tokenizers.ByteLevel(False)]
    )
    file = write_gguf(folder, tmp_path / "m.gguf", tokenizer__ggml__pre="nonsense")
    with pytest.raises(ModelLoadError, match=r"put the model's own tokenizer\.json beside the file"):
        ChatFormat.load(file)
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("beside")
    made = ChatFormat.load(file)
    assert made.render_chat([Message("user", "x")]) == "beside"
    (tmp_path / "m").mkdir()
    theirs.save(str(tmp_path / "m" / "tokenizer.json"))
    (tmp_path / "m" / "chat_template.jinja").write_text("closer")
    assert ChatFormat.load(file).render_chat([Message("user", "x")]) == "closer"


def test_the_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json: is not the tokenizer of m\.gguf: token 0 is 'a' there"):
        GgufFile(write_gguf(folder, tmp_path / "m.gguf")).check()


def test_a_template_that_is_no_template_is_named(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", tokenizer__chat_template="{% if %}")
    with pytest.raises(ModelLoadError, match=r"m\.gguf: chat template, line 1"):
        ChatFormat.load(file)


def test_a_file_without_a_template_says_so(folder: Path, tmp_path: Path) -> None:
    made = ChatFormat.load(write_gguf(folder, tmp_path / "m.gguf", tokenizer__chat_template=None))
    assert not made.templated and any("chat template" in line for line in made.found)


def test_what_a_template_does_stays_in_its_sandbox(folder: Path, tmp_path: Path) -> None:
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    made = ChatFormat.load(write_gguf(folder, tmp_path / "m.gguf", tokenizer__chat_template=evil))
    assert "Popen" not in made.report["chat template"]
    with pytest.raises(Exception, match=r"unsafe|template"):
        made.render_chat([Message("user", "x")])


def test_tokens_named_by_the_metadata_end_a_text(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", tokenizer__ggml__eot_token_id=65, tokenizer__ggml__eom_token_id=66)
    assert ChatFormat.load(file).eos_ids == {65, 66, 256, 258}
    assert metadata(folder)["tokenizer.ggml.eos_token_id"] == 258 and stored(folder)
