"""How a byte-level BPE cuts text into words before it merges, by the name in `tokenizer.ggml.pre`.

The name stands for expressions that llama.cpp knows (its `src/llama-vocab.cpp`); each cuts what the ones before left
whole. Here are those that models of the four architectures use, as the models' own tokenizers write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+CONTRACTED"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*CONTRACTED"
    r"|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Split:
    """`words_first`: a word that is a token is taken as it is, unmerged. `bos`: one begins every text, where the file
    does not say. `nfc`: text is brought into Unicode's form C first."""

    patterns: tuple[str, ...]
    words_first: bool = False
    bos: bool = False
    nfc: bool = False


def _lines(digits: str) -> str:
    """Words with at most one sign before them, digits, signs with the ends of lines after them."""
    rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}{rest}"


def _cased(digits: str, contracted: str = "") -> str:
    """The same, but words are cut where capitals begin."""
    return CASED.replace("DIGITS", digits).replace("CONTRACTED", contracted)


LLAMA3 = Split((_lines(r"\p{N}{1,3}"),), words_first=True, bos=True)
QWEN2 = Split((_lines(r"\p{N}"),))
DIGITS = Split((r"\p{N}", GPT2))
PLAIN = Split((GPT2,))
DEFAULT = Split((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
DEEPSEEK_CODER = Split(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"))
DEEPSEEK_V3 = Split((
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
))  # fmt: skip
SEED_CODER = Split((
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
))  # fmt: skip

SPLITS: Mapping[str, Split] = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0", "lfm2"), LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Split(LLAMA3.patterns)),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "hunyuan", "stablelm2", "kormo"), QWEN2),
    "qwen2": Split(QWEN2.patterns, nfc=True),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), DIGITS),
    **dict.fromkeys(("gpt-2", "phi-2", "gigachat", "olmo", "mpt", "jais", "trillion", "exaone4", "mellum"), PLAIN),
    "default": DEFAULT,
    "tekken": Split((_cased(r"\p{N}"),), words_first=True, bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), Split((_cased(r"\p{N}{1,3}", CONTRACTIONS + "?"),))),
    "deepseek-coder": DEEPSEEK_CODER,
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), DEEPSEEK_V3),
    "seed-coder": SEED_CODER,
    "viking": Split((" ?[^(\\s|.,!?…。，、।۔،)]+", r"\p{N}")),
}
"""Qwen's own tokenizer brings text into form C, which llama.cpp leaves out: a model's tokens are here those of its
folder at Hugging Face."""
