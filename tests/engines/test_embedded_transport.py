"""What samples gained on its way from the worker to a reader: gathered at both ends, joined in one way."""

from __future__ import annotations

import pickle

import pytest

from reason_engine.engines.embedded.front import SampleStream
from reason_engine.engines.embedded.messages import Delta, OutputBuffer, StepOutput, join
from reason_engine.errors import RequestError
from reason_engine.types import FinishReason, TokenLogprob


def delta(index: int, text: str, *ids: int, finish: FinishReason | None = None, prompt: int = 0) -> Delta:
    logprobs = tuple(TokenLogprob(i, text, -0.5) for i in ids)
    return Delta("r", index, text, ids, logprobs, finish, finish and 7, prompt, prompt // 2, 1, 2)


def test_deltas_of_a_sample_are_joined_in_order() -> None:
    made = join([delta(1, "a", 3, prompt=8), delta(1, ""), delta(1, "bc", 4, 5, finish="stop")])
    assert made[:4] == ("r", 1, "abc", (3, 4, 5))
    assert [one.token_id for one in made.logprobs] == [3, 4, 5]
    assert made[5:] == ("stop", 7, 8, 4, 3, 6)


def test_a_step_is_the_same_on_the_other_side_of_a_pipe() -> None:
    step = StepOutput([delta(0, "a", 1), delta(2, "b", 2)], [("x", None)], [], 3, 4, 5, 6)
    read = pickle.loads(pickle.dumps(step, protocol=5))
    assert read == step
    assert all(isinstance(one, Delta) for one in read.deltas)


def test_the_buffer_sends_first_and_last_deltas_at_once_and_joins_the_others() -> None:
    sent: list[StepOutput] = []
    buffer = OutputBuffer(sent.append, seconds=60)
    buffer.add(delta(0, "a", 1, prompt=4))
    buffer.flush(1, 0)
    assert [one.text for one in sent[0].deltas] == ["a"]
    for text in "bcd":
        buffer.add(delta(0, text, 2))
        buffer.add(delta(1, text.upper(), 3))
        buffer.flush(2, 0)
    assert len(sent) == 1
    buffer.add(delta(1, "!", finish="stop"))
    buffer.flush(1, 0)
    assert [(one.index, one.text, one.finish) for one in sent[1].deltas] == [(0, "bcd", None), (1, "BCD!", "stop")]
    assert sent[1].generated == 7
    buffer.flush(0, 0, now=True)
    assert len(sent) == 2


@pytest.mark.asyncio
async def test_a_reader_that_comes_late_gets_one_chunk_a_sample_and_then_the_error() -> None:
    stream = SampleStream(2)
    for text in "ab":
        stream.put(delta(0, text, 1))
    stream.put(delta(1, "x", 2, 3, finish="length"))
    stream.fail(RequestError("no more"))
    chunks = await stream.take()
    assert [(c.index, c.text, c.token_count, c.finish_reason) for c in chunks] == [
        (0, "ab", 2, None),
        (1, "x", 2, "length"),
    ]
    with pytest.raises(RequestError):
        await stream.take()
