"""Constraints on the text, by llguidance: JSON schema, regular expression, choice.

JSON is written with one style (`", "` and `": "`), so that a model cannot fill its limit with blanks.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reason_engine.errors import RequestError
from reason_engine.types import Structured

MOST_BYTES, MOST_DEPTH = 65536, 64
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def check(structured: Structured) -> None:
    """Refuse what is not worth compiling: too large, too deep, not JSON, more than one constraint."""
    given = [structured.json_schema is not None, structured.json_object, structured.regex is not None]
    if sum(given) + bool(structured.choice) != 1:
        raise _refused("exactly one of json_schema, json_object, regex and choice must be set")
    size = len((structured.json_schema or structured.regex or "").encode()) + sum(map(len, structured.choice))
    if size > MOST_BYTES:
        raise _refused(f"the constraint has {size} bytes; at most {MOST_BYTES} are compiled")
    if structured.json_schema is None:
        return
    try:
        schema: Any = json.loads(structured.json_schema)
    except (ValueError, RecursionError) as error:
        raise _refused(f"the JSON schema is not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise _refused("a JSON schema is an object")
    if _depth(schema) > MOST_DEPTH:
        raise _refused(f"the JSON schema is nested more than {MOST_DEPTH} deep")


class Matcher:
    """One sample's place in a grammar."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def allowed(self, vocab: int) -> NDArray[np.bool_]:
        """Which tokens may come next, (vocabulary,)."""
        bits = np.unpackbits(np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8), bitorder="little")
        out = np.zeros(vocab, dtype=np.bool_)
        out[: min(vocab, bits.size)] = bits[:vocab]
        return out

    def take(self, token: int) -> bool:
        """Go on by a token; True where the text can only end here."""
        self._inner.consume_token(token)
        return bool(self._inner.is_stopped())

    def fits(self, tokens: list[int]) -> int:
        """How many of these tokens, from the first on, may come next."""
        return int(self._inner.validate_tokens(tokens))

    def ahead(self, tokens: list[int], vocab: int) -> list[NDArray[np.bool_]]:
        """What may come next, and after each of these tokens, which fit."""
        there, masks = self.copy(), [self.allowed(vocab)]
        for token in tokens:
            there.take(token)
            masks.append(there.allowed(vocab))
        return masks

    def copy(self) -> Matcher:
        return Matcher(self._inner.deep_copy())


class Grammars:
    """Compiles constraints for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos_ids: frozenset[int]) -> None:
        self._tokenizer, self._vocab, self._eos = tokenizer, vocab, sorted(eos_ids)
        self._made: Any = None
        self._making = Lock()

    def prepare(self) -> None:
        """Make the tables of the vocabulary, once; they take seconds where it is large. Raises RequestError where the
        tokenizer is none that they can be made of."""
        from llguidance import LLTokenizer

        with self._making:
            if self._made is None:
                vocab = max(self._vocab, self._tokenizer.get_vocab_size())
                try:
                    self._made = LLTokenizer(self._tokenizer.to_str(), n_vocab=vocab, eos_token=self._eos or None)
                except Exception as error:  # boundary: the library raises whatever its parts do
                    raise _refused(f"this model's tokenizer takes no constraints: {error}") from error

    def compile(self, structured: Structured) -> Matcher:
        """A matcher at the beginning. Raises RequestError where the constraint cannot be compiled."""
        from llguidance import LLMatcher

        self.prepare()
        try:
            grammar = _grammar(structured)
        except ValueError as error:
            raise _refused(str(error)) from None
        inner = LLMatcher(self._made, grammar, log_level=0)
        if inner.is_error():
            raise _refused(inner.get_error().splitlines()[0])
        return Matcher(inner)


def _grammar(structured: Structured) -> str:
    from llguidance import LLMatcher

    if structured.json_schema is not None or structured.json_object:
        schema = structured.json_schema or '{"type": "object"}'
        return LLMatcher.grammar_from_json_schema(schema, overrides=STYLE)  # pyright: ignore[reportArgumentType]
    if structured.regex is not None:
        return LLMatcher.grammar_from_regex(structured.regex)
    options = " | ".join(json.dumps(option, ensure_ascii=False) for option in structured.choice)
    return LLMatcher.grammar_from_lark(f"start: {options}")


def _depth(value: Any) -> int:
    deepest, open_values = 0, [(value, 1)]
    while open_values:
        item, depth = open_values.pop()
        deepest = max(deepest, depth)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        open_values.extend((one, depth + 1) for one in inner)
    return deepest


def _refused(message: str) -> RequestError:
    return RequestError(message, param="response_format", code="invalid_schema")
