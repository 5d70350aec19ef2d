"""Answers without a short value: the most typical text, by shared words, embeddings or the model's own view."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing, EngineError
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.free_text import most_typical, refuses, shared, words
from reason_engine.types import Path, Problem, ScoreRequest, Scores, Structured
from tests.strategies.voting.run import context, notes, path

SEA = "It is about longing for the sea."
TEXTS = (SEA, "The poem is about the sea and about longing.", "A recipe for soup.", "The poem longs for the sea.")
QUESTION = "Describe what the poem is about."


def engine(*texts: str, **options: object) -> Scripted:
    return Scripted(lambda p, s, i: (texts or TEXTS)[i], **options)  # type: ignore[arg-type]


async def voted(made: Scripted, **fields: object) -> Outcome:
    return await solve(SelfConsistency.model_validate({"n": 4, **fields}), Problem(QUESTION), made)


def test_shared_words_are_an_f1() -> None:
    assert shared(words("the sea the sky"), words("The sea, the SEA!")) == pytest.approx(3 / 4)
    assert shared(words("one"), words("two")) == shared(words(""), words("")) == 0
    assert words("海が好き。")["海"] == 1  # signs of a script without spaces are words


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot write this.",
        "As an AI language model, I can't say.",
        "Sorry, no.",
    ],
)
def test_refusals(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", ["I am in love with the sea.", "Canned soup.", "The king said: I cannot.", "Sorrow."])
def test_no_refusals(text: str) -> None:
    assert not refuses(text)


async def test_the_text_most_like_the_others_is_the_answer_without_a_confidence() -> None:
    outcome = await voted(engine())
    assert (outcome.content, outcome.answer.value, outcome.answer.confidence) == (SEA, None, None)
    assert outcome.answer.votes == ()
    assert outcome.trace.nodes[0].notes["free_text"] == "shared words"


async def test_empty_cut_and_refusing_paths_stand_back() -> None:
    sorry = "I'm sorry, I can't."
    paths = [path(0, None, sorry), path(1, None, sorry), path(2, None, " "), path(3, None, "the sea"),
             path(4, None, "the sea the sea", finish_reason="length")]  # fmt: skip
    ctx = context("free")
    assert await most_typical(ctx, paths, [1.0] * 5, ask=False) is paths[3]
    assert await most_typical(ctx, paths[:3], [1.0] * 3, ask=False) is paths[0]
    assert await most_typical(ctx, paths[2:3], [1.0], ask=False) is None
    assert await most_typical(ctx, paths[:2], [0.0, 1.0], ask=False) is paths[1]
    assert await most_typical(ctx, [], [], ask=False) is None


async def test_weights_draw_the_middle() -> None:
    paths = [path(i, None, text) for i, text in enumerate(["red green", "red blue", "blue grey"])]
    assert await most_typical(context("free"), paths, [1, 1, 1], ask=False) is paths[1]
    assert await most_typical(context("free"), paths[::2] + paths[1:2], [9, 0.1, 1], ask=False) is paths[1]


class Embeds(Scripted):
    """Embeds a text by how often it speaks of the sea. `fails`: not even that."""

    def __init__(self, *names: str, fails: bool = False) -> None:
        super().__init__(lambda p, s, i: TEXTS[i])
        self.caps = replace(self.caps, embeds=names)
        self.fails, self.asked = fails, list[ScoreRequest]()

    async def score(self, request: ScoreRequest) -> Scores:
        self.asked.append(request)
        if self.fails:
            raise EngineError("down")
        return Scores(tuple((float("soup" in text), 0.5) for text in request.inputs))


async def test_embeddings_are_used_where_a_model_that_embeds_is_served() -> None:
    made = Embeds("served", "scripted", "small-embedder")
    outcome = await voted(made)
    assert (made.asked[0].task, made.asked[0].model, len(made.asked[0].inputs)) == ("embed", "small-embedder", 4)
    assert outcome.trace.nodes[0].notes["free_text"] == "embeddings by small-embedder"
    assert outcome.content == SEA
    own = Embeds("served", "scripted")
    await voted(own)
    assert own.asked == []  # its own states say little of meaning


async def test_where_embedding_fails_words_are_compared() -> None:
    outcome = await voted(Embeds("small-embedder", fails=True))
    assert outcome.content == SEA
    assert "down" in outcome.trace.nodes[0].notes["embeddings"]


async def test_the_model_is_asked_in_both_orders_which_answer_agrees_most() -> None:
    prompts: list[str] = []

    def choose(prompt: str, options: tuple[str, ...]) -> list[float]:
        prompts.append(prompt)
        liked = next(i for i, option in enumerate(options) if f"Answer {option}:\nA recipe" in prompt)
        return [0.5 * (i == 0) + 0.6 * (i == liked) for i in range(len(options))]  # it likes the first place, too

    outcome = await voted(engine(choose=choose), free_text="usc")
    assert outcome.content == "A recipe for soup."
    assert len(prompts) == 2 and all(text in prompts[0] for text in (*TEXTS, QUESTION))
    assert prompts[0].endswith("is number ")
    assert outcome.answer.confidence is None and outcome.answer.votes == ()


async def test_it_is_shown_eight_answers_and_no_more_than_half_of_the_context() -> None:
    seen: list[tuple[str, ...]] = []

    def choose(prompt: str, options: tuple[str, ...]) -> list[float]:
        seen.append(options)
        return [1.0] * len(options)

    many = [path(i, None, f"the sea is wide {i}") for i in range(12)]
    await most_typical(context("free", Scripted(choose=choose)), many, [1.0] * 12, ask=True)
    assert [len(options) for options in seen] == [8, 8]
    seen.clear()
    narrow = context("free", Scripted(choose=choose, context=150))
    await most_typical(narrow, many, [1.0] * 12, ask=True)
    assert len(seen) == 2 and 2 <= len(seen[0]) < 8
    seen.clear()
    tiny = context("free", Scripted(choose=choose, context=60))
    assert await most_typical(tiny, many, [1.0] * 12, ask=True) is not None
    assert seen == [] and "half of the context" in notes(tiny)["free_text"]


async def test_an_engine_that_cannot_choose_is_refused_before_a_token() -> None:
    made = engine(caps=Capabilities(logprobs=5, continuation=True))
    for fields in ({"free_text": "usc"}, {"ask_same": True}):
        with pytest.raises(CapabilityMissing, match="choose"):
            await voted(made, **fields)
    assert made.requests == 0
    with pytest.raises(ValueError, match="free_text"):
        SelfConsistency.model_validate({"free_text": "best"})


async def test_marked_answers_to_a_free_question_vote_all_the_same() -> None:
    outcome = await voted(engine("so\nAnswer: the sea", "so\nAnswer: the sea", "A recipe.", "Answer: soup"))
    assert (outcome.answer.votes[0].count, outcome.answer.confidence) == (2, pytest.approx(0.5))


async def test_paths_that_call_no_tool_are_compared_where_they_are_more() -> None:
    ctx_paths: list[Path] = [path(0, '[["look", "{}"]]'), *(path(i + 1, None, TEXTS[i]) for i in range(3))]
    ballot, ctx = Ballot(4), context("tool", problem=Problem("?", tools=({"type": "function"},)))
    await ballot.count(ctx, ctx_paths)
    answer = await ballot.answer(ctx)
    assert (answer.path and answer.path.text, answer.value) == (SEA, None)
    ballot, ctx = Ballot(2), context("json", problem=Problem("?", structured=Structured(json_object=True)))
    await ballot.count(ctx, [path(0, None), path(1, '{"a": 1}')])
    assert (await ballot.answer(ctx)).value == '{"a": 1}'
