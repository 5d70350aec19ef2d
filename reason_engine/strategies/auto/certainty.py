"""How sure an answer is, in [0, 1]: what a calibrated stage is accepted by.

1 or 0 where the question's task has a checker, else the strategy's own certainty (the share of the votes, the
verifier's score). Of a single path it is measured in one of two ways:

    answer    exp( 1/k sum log p_i )   over the k tokens that wrote the value, where they stand last; over all tokens
                                       where the path holds no value
    text      exp( sum log p_i )       over all tokens: the probability of the whole text

The second is 0 for all but the shortest texts: a chat model says the same in many ways. Policies that were fitted to it
keep it (`Policy.certainty`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from reason_engine.contracts import Checker
from reason_engine.policy import Measure
from reason_engine.types import Answer, TokenLogprob


def certainty(answer: Answer, checker: Checker | None = None, of: Measure = "answer") -> float:
    """How sure an answer is; 0 where there is none."""
    path = answer.path
    if path is None or not path.finished:
        return 0.0
    if checker:
        return float(answer.value is not None and checker.solved(answer.value))
    if answer.confidence is not None:
        return min(1.0, max(0.0, answer.confidence))
    if not path.logprobs:
        return 0.0
    if of == "text":
        return math.exp(min(0.0, sum(token.logprob for token in path.logprobs)))
    return geometric_mean(answer_tokens(path.logprobs, answer.value))


def geometric_mean(tokens: Sequence[TokenLogprob]) -> float:
    """The geometric mean probability of these tokens."""
    return math.exp(min(0.0, sum(token.logprob for token in tokens) / len(tokens)))


def answer_tokens(tokens: Sequence[TokenLogprob], value: str | None) -> Sequence[TokenLogprob]:
    """The tokens that wrote the value where it stands last, marks and blanks aside (`1,234` wrote 1234); all of them
    where it does not stand there as such."""
    texts = [_letters(token.token) for token in tokens]
    ends = list(accumulate(map(len, texts)))
    sought = _letters(value or "")
    begin = "".join(texts).rfind(sought) if sought else -1
    if begin < 0:
        return tokens
    starts = [0, *ends[:-1]]
    within = [i for i in range(len(tokens)) if starts[i] < begin + len(sought) and ends[i] > begin]
    return [tokens[i] for i in within]


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())
