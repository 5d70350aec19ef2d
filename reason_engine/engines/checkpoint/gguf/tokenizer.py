"""The tokenizer that a GGUF file's metadata describes, built with the `tokenizers` library.

Two kinds: `gpt2`, byte-level BPE with its merges; `llama`, SentencePiece's BPE with a score for each piece, and bytes
for what no piece covers. Control tokens become special tokens, tokens defined by a user added ones: both are found
whole in a text. Follows llama.cpp. Unlike transformers' reader of the same metadata, every way of cutting words is
honoured or refused, words that are tokens stay whole where the model keeps them so, and what begins a text comes from
the metadata.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from reason_engine.engines.checkpoint.gguf.header import Header
from reason_engine.engines.checkpoint.gguf.splits import SPLITS, Split
from reason_engine.errors import ModelLoadError

NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "▁"
OWN = "put the model's own tokenizer.json beside the file"
BYTES = {f"<0x{number:02X}>" for number in range(256)}


def build_tokenizer(header: Header) -> Tokenizer:
    """Raises ModelLoadError naming the entry that is missing, odd or not known."""
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ModelLoadError(
            f"{header.path}: a tokenizer of the kind {kind!r} (tokenizer.ggml.model) cannot be built, only gpt2 and "
            f"llama; {OWN}"
        )
    tokens = tokens_of(header)
    types = _listed(header, "token_type", len(tokens), int) or [NORMAL] * len(tokens)
    try:
        made = _byte_level(header, tokens, types) if kind == "gpt2" else _pieces(header, tokens, types)
        _add_marked(made, tokens, types)
    except ModelLoadError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelLoadError(f"{header.path}: its tokenizer cannot be built: {error}; {OWN}") from None
    _add_beginning(made, header, tokens)
    return made


def tokens_of(header: Header) -> list[str]:
    """The texts of all tokens, by number. Raises ModelLoadError."""
    tokens = header.strings("tokenizer.ggml.tokens")
    if not tokens:
        raise ModelLoadError(f"{header.path}: has no tokens (tokenizer.ggml.tokens); {OWN}")
    return tokens


def split_of(header: Header) -> Split:
    """How words are cut. Files from before the entry was invented: by the architecture."""
    missing = "qwen2" if str(header.metadata.get("general.architecture")).startswith("qwen") else "default"
    name = header.metadata.get("tokenizer.ggml.pre", missing)
    if name not in SPLITS:
        raise ModelLoadError(f"{header.path}: tokenizer.ggml.pre {name!r} is not known here; {OWN}")
    return SPLITS[name]


def token_id(header: Header, name: str, count: int) -> int | None:
    """The number under `tokenizer.ggml.NAME_token_id`; None where there is none. Raises ModelLoadError."""
    key = f"tokenizer.ggml.{name}_token_id"
    found: Any = header.metadata.get(key)
    if found is None and header.metadata.get("tokenizer.ggml.model") == "llama":
        found = {"unknown": 0, "bos": 1, "eos": 2}.get(name)  # SentencePiece's own order
    if found is None or found == 0xFFFFFFFF:
        return None
    if not isinstance(found, int) or not 0 <= found < count:
        raise ModelLoadError(f"{header.path}: {key} is {found!r}, which is none of its {count} tokens")
    return found


def _byte_level(header: Header, tokens: list[str], types: list[int]) -> Tokenizer:
    split = split_of(header)
    lines = header.strings("tokenizer.ggml.merges") or []
    if not lines and any(kind == NORMAL and len(token) > 1 for token, kind in zip(tokens, types, strict=True)):
        raise ModelLoadError(f"{header.path}: has no merges (tokenizer.ggml.merges); {OWN}")
    merges = [(line[:at], line[at + 1 :]) for line in lines if (at := line.find(" ", 1)) > 0]
    vocabulary = {token: number for number, token in reversed(list(enumerate(tokens)))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=split.words_first))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    if split.nfc:
        made.normalizer = normalizers.NFC()
    return made


def _pieces(header: Header, tokens: list[str], types: list[int]) -> Tokenizer:
    scores = _listed(header, "scores", len(tokens), float)
    if scores is None:
        raise ModelLoadError(f"{header.path}: has no scores (tokenizer.ggml.scores); {OWN}")
    if not BYTES.issubset(tokens):
        raise ModelLoadError(f"{header.path}: tokenizer.ggml.tokens lacks some of <0x00> … <0xFF>; {OWN}")
    unknown = token_id(header, "unknown", len(tokens))
    vocabulary = {token: number for number, token in reversed(list(enumerate(tokens)))}
    made = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=_merges(tokens, types, scores), byte_fallback=True, fuse_unk=True,
            unk_token=None if unknown is None else tokens[unknown],
        )
    )  # fmt: skip
    prefixed = header.metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", SPACE)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefixed else spaces
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefixed else parts)
    return made


def _merges(tokens: list[str], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Two pieces whose join is a piece are merged, that of the highest score first."""
    known = {token for token, kind in zip(tokens, types, strict=True) if kind in (NORMAL, DEFINED, UNUSED)}
    found: list[tuple[float, int, int, str, str]] = []
    for number, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        if token in known and len(token) > 1:
            cuts = ((token[:at], token[at:]) for at in range(1, len(token)))
            found += [(-score, number, len(left), left, right) for left, right in cuts if {left, right} <= known]
    return [(left, right) for *_, left, right in sorted(found)]


def _add_marked(made: Tokenizer, tokens: list[str], types: list[int]) -> None:
    whole = [(token, kind) for token, kind in zip(tokens, types, strict=True) if kind in (UNKNOWN, CONTROL, DEFINED)]
    added = [AddedToken(token, normalized=False, special=kind != DEFINED) for token, kind in whole if token]
    made.add_special_tokens([token for token in added if token.special])
    made.add_tokens([token for token in added if not token.special])


def _add_beginning(made: Tokenizer, header: Header, tokens: list[str]) -> None:
    """One token before every text, where the file or the kind of tokenizer asks for it."""
    kind = header.metadata["tokenizer.ggml.model"]
    usual = kind == "llama" or split_of(header).bos
    bos = token_id(header, "bos", len(tokens))
    if header.metadata.get("tokenizer.ggml.add_bos_token", usual) and bos is not None:
        begin = {"id": "bos", "ids": [bos], "tokens": [tokens[bos]]}
        made.post_processor = processors.TemplateProcessing(single="bos $A", special_tokens=[begin])


def _listed(header: Header, name: str, count: int, kind: type) -> list[Any] | None:
    found: Any = header.metadata.get(f"tokenizer.ggml.{name}")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(one, kind) for one in found):
        raise ModelLoadError(f"{header.path}: tokenizer.ggml.{name} is not one number for each of {count} tokens")
    return found
