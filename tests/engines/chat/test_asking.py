"""A run on a model that always thinks: probabilities are read after the thought, grammars begin after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reason_engine.contracts import Parsed
from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.context import Context
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.runtime.stream_text import Piece
from reason_engine.strategies import Strategy
from reason_engine.strategies.direct import Direct
from reason_engine.types import Answer, Message, Problem, Structured
from tests.engines.chat.families import FAMILIES, WEATHER
from tests.models import write_tokenizer


class Speaking(Scripted):
    """Answers by a function in the chat format of a family."""

    def __init__(self, folder: Path, family: str, reply: str) -> None:
        self.asked: list[str] = []
        super().__init__(lambda prompt, seed, index: reply, choose=self._weigh)
        write_tokenizer(folder, FAMILIES[family].template)
        self.format = ChatFormat.load(folder)
        self.info = self.format.info("m", "", 4096, "")

    def _weigh(self, prompt: str, options: tuple[str, ...]) -> list[float]:
        self.asked.append(prompt)
        return [1.0] * len(options)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        return self.format.render_chat(messages, tools=tools, think=think, prefill=prefill)

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        return self.format.parse(text, prompt=prompt)


class Judging(Strategy):
    """Asks for yes or no."""

    name = "judging"

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        await ctx.choice("Is it so?", ("yes", "no"), prefill="Verdict: ")
        return Answer(value="yes")


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.thought])
@pytest.mark.parametrize("think", [None, True, False])
async def test_a_choice_is_read_outside_of_a_thought(tmp_path: Path, name: str, think: bool | None) -> None:
    engine = Speaking(tmp_path, name, "")
    await solve(Judging(), Problem("?"), engine, think=think)
    (prompt,) = engine.asked
    if not engine.info.thinks and think is None:
        assert not engine.format.opened(prompt)
    else:
        assert prompt.endswith(f"{FAMILIES[name].off}Verdict: ")


@pytest.mark.parametrize("name", ["qwen3-thinking", "gpt-oss", "kimi-k2"])
async def test_a_schema_and_a_forced_call_begin_after_the_thought(tmp_path: Path, name: str) -> None:
    engine, closed = Speaking(tmp_path, name, "{}"), FAMILIES[name].off
    await solve(Direct(), Problem("?", structured=Structured(json_object=True)), engine)
    await solve(Direct(), Problem("?", tools=(WEATHER,), tool_choice="required"), engine)
    first, second = (str(request.prompt) for request in engine.log)
    assert first.endswith(closed)
    assert second.endswith(closed + engine.info.tool_opening)


async def streamed(engine: Speaking, problem: Problem) -> tuple[Outcome, str, str]:
    pieces: list[Piece] = []
    outcome = await solve(Direct(), problem, engine, say=pieces.append)
    reasoning, content = ("".join(p.text for p in pieces if p.field == field) for field in ("reasoning", "content"))
    return outcome, reasoning, content


@pytest.mark.parametrize("name", FAMILIES)
async def test_what_is_streamed_is_split_by_the_same_marks(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    wrote = " ".join(family.wrote.replace("so", "so it is").replace("42", "it is 42").split(" "))
    outcome, reasoning, content = await streamed(Speaking(tmp_path, name, wrote), Problem("?"))
    assert (reasoning.strip(), content.strip()) == ("so it is" if family.thinks else "", "it is 42")
    assert outcome.content.strip() == content.strip()


@pytest.mark.parametrize("name", FAMILIES)
async def test_a_streamed_call_is_no_content(tmp_path: Path, name: str) -> None:
    engine = Speaking(tmp_path, name, FAMILIES[name].call)
    outcome, reasoning, content = await streamed(engine, Problem("?", tools=(WEATHER,)))
    if engine.info.thinks and FAMILIES[name].head:
        return  # there the text begins inside a thought
    assert [call.name for call in outcome.tool_calls] == ["weather"]
    assert (reasoning, content) == ("", "")


async def test_a_call_after_an_analysis_shows_no_mark(tmp_path: Path) -> None:
    family = FAMILIES["gpt-oss"]
    analysis = "<|channel|>analysis<|message|>so<|end|>"
    engine = Speaking(tmp_path, "gpt-oss", f"{analysis}<|start|>assistant{family.call}")
    outcome, reasoning, content = await streamed(engine, Problem("?", tools=(WEATHER,)))
    assert ([call.name for call in outcome.tool_calls], reasoning, content) == (["weather"], "so", "")
    cut = await streamed(Speaking(tmp_path, "gpt-oss", f"{analysis}<|start|>assistant"), Problem("?"))
    assert cut[1:] == ("so", "")


async def test_a_folded_system_turn_is_noted_in_the_trace(tmp_path: Path) -> None:
    engine = Speaking(tmp_path, "gemma3", "42")
    outcome = await solve(Direct(), Problem("?", history=(Message("system", "Be brief."),)), engine)
    assert "first user turn" in outcome.trace.nodes[0].notes["system"]
    plain = await solve(Direct(), Problem("?"), engine)
    assert "system" not in plain.trace.nodes[0].notes
