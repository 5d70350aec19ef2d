"""A request's prompts are rendered and tokenised once each, by admission, budget and engine together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import pytest

from reason_engine.contracts import Engine
from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import bundled_model
from reason_engine.engines.scripted import Scripted
from reason_engine.profile import read_profile
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.solve import solve
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Message, Problem, Sampling

QUESTION = "Use the numbers 4 6 8 2 and the operations + - * / to make 24."
CASES: list[tuple[str, Mapping[str, Any]]] = [
    ("direct", {}),
    ("self-consistency", {"n": 16}),
    ("tree-of-thoughts", {"k": 3, "visits": 4}),
    ("tree-of-thoughts", {"k": 3, "visits": 2, "search": "breadth", "generate": "propose", "depth": 2}),
    ("best-of-n", {"n": 4, "verifier": {"name": "judge"}}),
    ("budget-forcing", {"rounds": 2}),
]


class Counts:
    """How often each text was tokenised and each conversation rendered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts, self.rendered = Counter[str](), Counter[str]()
        for kind in (Scripted, ChatFormat):
            monkeypatch.setattr(kind, "tokenize", self._text(kind.tokenize))
            monkeypatch.setattr(kind, "render_chat", self._chat(kind.render_chat))
        monkeypatch.setattr(ChatFormat, "tokenize_bare", self._text(ChatFormat.tokenize_bare))

    def _text(self, inner: Callable[..., list[int]]) -> Callable[..., list[int]]:
        def tokenize(engine: object, text: str) -> list[int]:
            self.texts[text] += 1
            return inner(engine, text)

        return tokenize

    def _chat(self, inner: Callable[..., str]) -> Callable[..., str]:
        def render(engine: object, messages: Sequence[Message], **options: Any) -> str:
            self.rendered[repr((tuple(messages), options))] += 1
            return inner(engine, messages, **options)

        return render

    @property
    def most(self) -> tuple[int, int]:
        """Of one text, and of one conversation."""
        return max(self.texts.values()), max(self.rendered.values())


async def engine_named(name: str) -> Engine:
    if name == "scripted":
        return Scripted(
            lambda prompt, seed, index: f"{4 + seed % 3} + 6 = {10 + seed % 3}\n4 + 8 = 12\nAnswer: 24",
            choose=lambda prompt, options: [0.5, 0.5],
        )
    return Embedded(bundled_model(), inline=True, threads=1)


@pytest.mark.parametrize("name", ["scripted", "embedded"])
@pytest.mark.parametrize(("strategy", "fields"), CASES)
async def test_each_text_is_tokenised_once(
    name: str, strategy: str, fields: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await engine_named(name)
    await engine.start()
    try:
        counts = Counts(monkeypatch)
        await solve(
            strategies.get(strategy).model_validate(fields),
            Problem(QUESTION),
            engine,
            profile=read_profile(bundled_model()),
            limits=Limits(tokens=2000),  # so that paths go on with further leases
            sampling=Sampling(max_tokens=96),
        )
    finally:
        await engine.close()
    assert counts.most == (1, 1), [text for text, count in counts.texts.items() if count > 1]


async def test_choices_and_admission_share_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted()
    counts, prompts = Counts(monkeypatch), PromptCache(engine)
    first = prompts.prompt(prompts.render(Problem("?").turns()))
    for seed in range(3):
        await solve(strategies.get("direct")(), Problem("?"), engine, seed=seed, prompts=prompts)
    assert counts.most == (1, 1)
    assert [(request.prompt, tuple(first.ids)) for request in engine.log] == [(first.text, first.ids)] * 3


def test_a_prompts_tokens_are_those_the_engine_makes_of_its_text() -> None:
    format_ = ChatFormat.load(FilePath(bundled_model()))
    engine: Any = format_
    prompts = PromptCache(engine)
    text = prompts.render((Message("user", QUESTION),), prefill="4 + 6")
    assert text == format_.render_chat([Message("user", QUESTION)]) + "4 + 6"
    assert list(prompts.prompt(text).ids) == format_.tokenize(text)
