"""What a reward model is shown, in the tokens of its own tokenizer, with the places to read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.rewards.layout import Shown
from reason_engine.errors import RequestError


def tokens_of(shown: Shown, chat: ChatFormat, *, opening: str = "") -> tuple[list[int], tuple[int, ...]]:
    """(token ids, the token to read for each place). `opening`: what the tokenizer puts before a text without turns.

    Raises RequestError where the chat template refuses, or writes earlier turns anew when more come.
    """
    if shown.replies:
        whole = chat.render_chat(shown.turns, closed=True)
        befores = [chat.render_chat(shown.turns[:number]) for number in shown.reads]
        if not all(whole.startswith(before) for before in befores):
            raise RequestError("the reward model's chat template changes earlier turns", param="reasoning.verifier")
        ids, starts = located(chat, [whole])
        return ids, last_before(starts, [len(before) for before in befores])
    before = chat.render_chat(shown.turns) if shown.turns else opening
    pieces = [shown.text[start:end] for start, end in pairwise((0, *shown.cuts, len(shown.text)))]
    ids, starts = located(chat, [before + pieces[0], *pieces[1:]])
    return ids, last_before(starts, [len(before) + place for place in shown.reads])


def located(chat: ChatFormat, pieces: Sequence[str]) -> tuple[list[int], list[int]]:
    """(tokens of pieces that are tokenised apart, how many characters stand before each; -1 for those that the
    tokenizer puts at the very beginning)."""
    ids, starts, done = list[int](), list[int](), 0
    for number, piece in enumerate(pieces):
        made = chat.tokenizer.encode(piece, add_special_tokens=False)
        whole = chat.tokenize(piece) if number == 0 else made.ids
        starts += [-1] * (len(whole) - len(made.ids)) + [done + start for start, _ in made.offsets]
        ids += whole
        done += len(piece)
    return ids, starts


def last_before(starts: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    """For each end the last token that begins before it; the first one where none does."""
    return tuple(max((i for i, start in enumerate(starts) if start < end), default=0) for end in ends)
