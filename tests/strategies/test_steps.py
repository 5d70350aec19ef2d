"""Growing a solution step by step, for models that know nothing of it: what every search over steps relies on."""

from __future__ import annotations

from typing import Any

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.beam_search import BeamSearch
from reason_engine.strategies.tree_of_thoughts import TreeOfThoughts
from reason_engine.types import Problem, Sampling, Structured
from tests.strategies.story import PROFILE, QUESTION, RIGHT, steps_judge, tell

pytestmark = pytest.mark.usefixtures(steps_judge.__name__)
__all__ = ["steps_judge"]
ASKED = Problem(QUESTION)


def scripted(text: str, **engine: Any) -> Scripted:
    """An engine that goes on with `text` from wherever the assistant's turn stands."""
    return Scripted(lambda prompt, s, i: text[len(prompt.rpartition("<assistant>\n")[2]) :], **engine)


async def search(
    text: str, problem: Problem = ASKED, *, max_tokens: int = 0, **fields: Any
) -> tuple[Outcome, Scripted]:
    engine = scripted(text)
    strategy = BeamSearch.model_validate({"n": 2, "m": 1, **fields})
    sampling = Sampling(max_tokens=max_tokens)
    return await solve(strategy, problem, engine, profile=PROFILE, sampling=sampling), engine


def searched(outcome: Outcome) -> bool:
    """Whether the search itself found the answer, so that no path had to be finished in one go."""
    return "finish" not in {node.stage for node in outcome.trace.nodes}


async def test_empty_lines_are_no_steps() -> None:
    text = "\n\nFirst we add.\n\n\n3 + 4 = 7\n\nAnswer: 7"
    outcome, _ = await search(text, depth=3)
    assert outcome.answer.path is not None
    assert outcome.answer.path.text == text
    assert outcome.content == "Answer: 7"
    assert searched(outcome)


async def test_a_model_that_only_breaks_lines_is_left_alone() -> None:
    outcome, engine = await search("\n" * 200)
    assert engine.requests <= 10
    assert outcome.answer.value is None


async def test_an_end_after_the_last_line_break_is_an_end() -> None:
    outcome, _ = await search("3 + 4 = 7\n**Answer: 7**\n")
    assert outcome.answer.value == "7"
    assert outcome.finish_reason == "stop"
    assert searched(outcome)


async def test_a_step_longer_than_its_limit_goes_on_in_the_next() -> None:
    text = "a b c d e f g h\nAnswer: 7"
    outcome, engine = await search(text, step_tokens=3)
    assert outcome.content == "Answer: 7"
    assert outcome.reasoning is not None
    assert outcome.answer.path is not None
    assert outcome.answer.path.text == text
    assert max(request.sampling.max_tokens for request in engine.log) == 3


async def test_the_path_of_an_answer_has_every_token_of_its_steps() -> None:
    text = "3 + 4 = 7. 7 - 2 = 5. Answer: 5"
    engine, profile = scripted(text), PROFILE.model_copy(update={"step_end": "."})
    outcome = await solve(BeamSearch(n=2, m=1), ASKED, engine, profile=profile)
    path = outcome.answer.path
    assert path is not None
    assert engine.requests == 3
    assert path.text == engine.detokenize(path.token_ids).removesuffix("</s>") == text
    assert len(path.logprobs) == len(path.token_ids) == path.tokens
    assert path.prefill == ""


async def test_steps_continue_on_token_ids_and_without_them_on_text() -> None:
    _, engine = await search("\n".join(RIGHT))
    assert [isinstance(request.prompt, str) for request in engine.log] == [True, False, False]
    plain = scripted("\n".join(RIGHT), caps=Capabilities(logprobs=0, token_ids=True))
    outcome = await solve(BeamSearch(n=2, m=1), ASKED, plain, profile=PROFILE)
    assert all(isinstance(request.prompt, str) for request in plain.log)
    assert outcome.answer.value == "5"


async def test_max_completion_tokens_bounds_the_whole_path() -> None:
    whole, _ = await search("\n".join(RIGHT))
    assert whole.answer.path is not None
    outcome, _ = await search("\n".join(RIGHT), max_tokens=whole.answer.path.tokens - 2)
    longest = max(len(node.prefill.split()) + node.tokens for node in outcome.trace.nodes if node.role == "path")
    assert longest <= whole.answer.path.tokens - 2
    assert outcome.finish_reason == "length"


async def test_a_full_context_ends_a_path_not_the_request() -> None:
    engine = Scripted(lambda prompt, s, i: "and so on\n", context=60)
    outcome = await solve(BeamSearch(n=2, m=1), ASKED, engine, profile=PROFILE)
    assert outcome.finish_reason == "length"
    assert outcome.content.startswith("and so on")


async def test_an_answer_is_put_into_the_form_that_is_asked_for() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return '{"left": 5}' if "form that is asked for" in prompt else tell(prompt, seed, index)

    form = Structured(json_schema='{"type": "object"}')
    engine = Scripted(reply)
    outcome = await solve(BeamSearch(n=4), Problem(QUESTION, structured=form), engine, profile=PROFILE)
    assert outcome.content == '{"left": 5}'
    assert [request.sampling.structured for request in engine.log[:-1]] == [None] * (len(engine.log) - 1)
    assert engine.log[-1].sampling.structured == form
    assert "\n".join(RIGHT) in str(engine.log[-1].prompt)


async def test_tools_are_shown_to_every_step() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    engine = scripted("\n".join(RIGHT))
    await solve(BeamSearch(n=2, m=1), Problem(QUESTION, tools=(tool,)), engine, profile=PROFILE)
    assert str(engine.log[0].prompt).startswith("<tools>")


class General:
    """A model without a profile: it proposes from a list, and says yes to what is right."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def choose(self, prompt: str, options: tuple[str, ...]) -> list[float]:
        self.asked.append(prompt)
        assert options == ("yes", "no")
        return [0.9, 0.1] if RIGHT[0] in prompt else [0.3, 0.7]


@pytest.mark.parametrize("fields", [{}, {"search": "breadth", "breadth": 2}])
async def test_tree_of_thoughts_needs_neither_profile_nor_checker(fields: dict[str, Any]) -> None:
    model = General()

    def reply(prompt: str, seed: int, index: int) -> str:
        return tell(prompt, seed, index)

    engine = Scripted(reply, choose=model.choose)
    outcome = await solve(TreeOfThoughts.model_validate(fields), ASKED, engine, profile=Profile())
    assert outcome.answer.value == "5"
    assert (
        outcome.answer.confidence is not None and 0.5 < outcome.answer.confidence < 1
    )  # its share of the weighted vote
    assert outcome.trace.nodes[0].notes["evaluate"] == "value"
    assert any(QUESTION in prompt and RIGHT[0] in prompt for prompt in model.asked)


async def test_a_profiles_prompt_that_shows_no_problem_is_for_tasks_with_a_checker() -> None:
    model = General()
    engine = Scripted(tell, choose=model.choose)
    await solve(TreeOfThoughts(), ASKED, engine, profile=Profile(value_prompt="Can {state}?"))
    assert all(QUESTION in prompt for prompt in model.asked)


async def test_a_verifier_of_steps_ranks_where_the_request_or_the_profile_names_one() -> None:
    for fields, profile in (({"verifier": "steps-judge"}, Profile()), ({}, PROFILE)):
        engine = Scripted(tell)
        outcome = await solve(TreeOfThoughts.model_validate(fields), ASKED, engine, profile=profile)
        assert engine.chooses == 0
        notes = outcome.trace.nodes[0].notes
        assert (notes["evaluate"], notes["verifier"]) == ("verifier", "steps-judge")
        assert outcome.answer.value == "5"


async def paragraphs(text: str, **fields: Any) -> Outcome:
    """A model without a profile that writes this text."""
    strategy = BeamSearch.model_validate({"n": 2, "m": 1, **fields})
    return await solve(strategy, ASKED, scripted(text), profile=Profile())


def drawn(outcome: Outcome) -> list[str]:
    """The texts of the first beam's steps, in order."""
    return [node.text for node in outcome.trace.nodes if node.name == "path 0" and node.stage == "propose"]


HEADED = "We add and take away what is said.\n\n**Answer:**\n\n5 apples are left."


async def test_a_heading_alone_is_no_end() -> None:
    outcome = await paragraphs(HEADED)
    assert outcome.answer.path is not None and outcome.answer.path.text == HEADED
    assert outcome.answer.value == "5"
    assert searched(outcome)


@pytest.mark.parametrize(
    "end", ["So it is \\boxed{5}.", "**Answer:** 5 apples", "The answer is:\n\\[ \\boxed{5} \\]", "\\boxed{5}"]
)
async def test_a_closed_answer_ends_a_path_and_nothing_else_does(end: str) -> None:
    outcome = await paragraphs(f"We add and take away what is said.\n\n{end}\n\nAnd let me tell you more about it.")
    assert outcome.answer.path is not None and outcome.answer.path.text.rstrip().endswith(end)
    assert outcome.answer.value == "5"
    assert searched(outcome)


async def test_short_pieces_and_open_blocks_are_no_steps() -> None:
    text = (
        "### Step 1\n\nAnn has 3 + 4 = 7 apples.\n\n```python\nleft = 7 - 2\n\nprint(left)\n```\n\nSo it is \\boxed{5}."
    )
    outcome = await paragraphs(text)
    kept = [node.notes["kept"][0][0] for node in outcome.trace.nodes if node.notes.get("kept")]
    assert kept == [
        "### Step 1\n\nAnn has 3 + 4 = 7 apples.",
        "```python\nleft = 7 - 2\n\nprint(left)\n```",
        "So it is \\boxed{5}.",
    ]


async def test_equal_short_pieces_go_on_together() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        turn = prompt.rpartition("<assistant>\n")[2]
        return f"step {seed} of a long way" if turn else "## Step 1\n\nnever said"

    engine = Scripted(reply)
    await solve(BeamSearch(n=6, m=6, depth=1), ASKED, engine, profile=Profile())
    assert [request.n for request in engine.log[:2]] == [6, 6]


async def test_a_path_that_nobody_can_read_is_asked_for_its_answer() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return "5}" if prompt.endswith("\\boxed{") else "She has some of them left, as far as we know."

    outcome = await solve(BeamSearch(n=2, m=1), ASKED, Scripted(reply), profile=Profile())
    assert outcome.answer.value == "5"
    assert "ask" in {node.name for node in outcome.trace.nodes}
