"""Embeddings: by the served model against transformers, by endpoints, and as the documents' second way of search."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI, HTTPException, Request
from httpx2 import ASGITransport, AsyncClient
from openai import AsyncOpenAI

from reason_engine.contracts import Capabilities
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import open_engine
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing, EngineError, RequestError, SetupError, UnknownModel
from reason_engine.knowledge import Library
from reason_engine.knowledge.library import fuse
from reason_engine.settings import Settings
from reason_engine.types import ScoreRequest, Scores
from tests.engines.contract import read, request
from tests.models import TINY

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXTS = ("The red box holds 34 stamps.", "Platform 7", "x")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    made = Embedded(tiny_qwen3, inline=True, name="tiny")
    await made.start()
    yield made
    await made.close()


def ask(*inputs: str, model: str | None = None) -> ScoreRequest:
    return ScoreRequest("e", inputs, "embed", model)


async def test_the_served_models_vectors_are_the_mean_of_its_states(engine: Embedded, tiny_qwen3: Path) -> None:
    import torch
    import transformers

    await read(engine, request(TEXTS[0]))  # its prefix is known now
    scores = await engine.score(ask(*TEXTS, model="served"))
    assert scores.prompt_tokens == sum(map(len, TEXTS))  # a byte is a token
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(tiny_qwen3, dtype=torch.float32).eval()
        for text, vector in zip(TEXTS, scores.values, strict=True):
            mean = model(torch.tensor([engine.tokenize(text)])).last_hidden_state[0].mean(0)
            assert vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-4)
    assert math.hypot(*scores.values[0]) == pytest.approx(1, abs=1e-5)
    for model in (None, "tiny"):
        again = await engine.score(ask(*TEXTS, model=model))
        assert again.values[1] == pytest.approx(scores.values[1], abs=1e-5)


async def test_many_at_once_and_longer_ones_than_the_context(engine: Embedded) -> None:
    texts = [f"{'y' * (n % 60)} {n}" for n in range(40)]
    before = await read(engine, request("load"))
    async with asyncio.TaskGroup() as group:
        made = group.create_task(engine.score(ask(*texts)))
        during = group.create_task(read(engine, request("load")))
    assert [s.text for s in during.result()] == [s.text for s in before]
    (alone,) = (await engine.score(ask(texts[23]))).values
    assert made.result().values[23] == pytest.approx(alone, abs=1e-4)
    context = TINY["max_position_embeddings"]
    long, cut = (await engine.score(ask("ab" * context, "ab" * (context // 2)))).values
    assert long == pytest.approx(cut, abs=1e-5)
    assert (await engine.score(ask())).values == ()


async def test_what_cannot_be_embedded_is_refused(engine: Embedded) -> None:
    assert engine.caps.embeds == ("served", "tiny") and not engine.caps.score
    with pytest.raises(UnknownModel, match="'/etc/passwd' embeds here; one of: served, tiny"):
        await engine.score(ask("x", model="/etc/passwd"))
    with pytest.raises(RequestError, match="empty"):
        await engine.score(ask("x", ""))
    with pytest.raises(CapabilityMissing, match="knowledge_model=http"):
        await Endpoints({"judge": "http://embeds"}).score(ask("x"))


async def test_in_a_process_of_its_own(tiny_qwen3: Path, engine: Embedded) -> None:
    made = Embedded(tiny_qwen3, threads=1)
    await made.start()
    try:
        there = (await made.score(ask(*TEXTS))).values
    finally:
        await made.close()
    here = (await engine.score(ask(*TEXTS))).values
    assert [list(row) for row in there] == [pytest.approx(row, abs=1e-5) for row in here]


class Remote(Scripted):
    """Any engine, with an endpoint beside it that knows two things: trains, and the rest."""

    def __init__(self, url: str = "embed+http://embeds", reply: Any = None) -> None:
        self.log: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.down = False
        app = FastAPI()

        @app.post("/{path:path}")
        async def embeddings(path: str, got: Request) -> Any:
            if self.down:
                raise HTTPException(500, "out of order")
            self.log.append(body := await got.json())
            self.paths.append(path)
            rows = [[1.0, 0.0] if "rain" in text or "Zug" in text else [0.0, 2.0] for text in body["input"]]
            data = [{"index": at, "embedding": row} for at, row in enumerate(rows)]
            return reply or {"data": data[::-1], "usage": {"prompt_tokens": 9}}

        client = AsyncClient(transport=ASGITransport(app=app))
        openai = AsyncOpenAI(base_url="http://embeds", api_key="none", http_client=client, max_retries=0)
        self.endpoints = Endpoints({"small": url}, client=openai)
        super().__init__(caps=Capabilities(embeds=self.endpoints.embeds))

    async def score(self, request: ScoreRequest) -> Scores:
        return await self.endpoints.score(request)


async def test_an_endpoint_with_the_embeddings_api() -> None:
    made = Remote("embed+http://embeds/#bge")
    assert made.endpoints.kinds == {} and made.endpoints.embeds == ("small",)
    scores = await made.score(ask("train", "box", model="small"))
    assert scores == Scores(((1.0, 0.0), (0.0, 2.0)), 9)
    wanted = {"input": ["train", "box"], "model": "bge", "encoding_format": "float"}
    assert made.log == [{**wanted, "truncate_prompt_tokens": -1}] and made.paths == ["v1/embeddings"]
    assert (await made.score(ask())).values == ()
    versioned = Remote("embed+http://embeds/v1")
    await versioned.score(ask("box"))
    assert versioned.paths == ["v1/embeddings"] and "model" not in versioned.log[0]


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": ["NaN"]}],
        [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": None}],
        "no",
    ],
)
async def test_an_endpoint_that_answers_nonsense(data: Any) -> None:
    with pytest.raises(EngineError, match="'small': the endpoint's reply is not an embeddings response"):
        await Remote(reply={"data": data}).score(ask("a", "b"))


FACTS = ("The red box holds 34 stamps.", "Room 12 belongs to Anna.", "The train leaves from platform 7.")


async def library(folder: Path, engine: Any, model: str) -> Library:
    for number, fact in enumerate(FACTS):
        (folder / f"{number}.txt").write_text(fact)
    made = Library(folder, engine=engine, model=model)
    await made.open()
    return made


async def test_documents_are_found_by_the_served_models_vectors(tmp_path: Path, engine: Embedded) -> None:
    made = await library(tmp_path, engine, "served")
    question = "Zug box?"
    *rows, asked = (await engine.score(ask(*(p.text for p in made.passages), question))).values
    near = sorted(range(3), key=lambda at: -sum(a * b for a, b in zip(rows[at], asked, strict=True)))
    box = next(at for at, passage in enumerate(made.passages) if "box" in passage.text)
    wanted = fuse([[box], near])
    found = await made.retrieve(question, 3)
    assert [p.source for p in found] == [made.passages[at].source for at, _ in wanted]
    assert [p.score for p in found] == pytest.approx([score for _, score in wanted])
    plain = Library(tmp_path)
    await plain.open()
    assert len(await plain.retrieve(question, 3)) == 1, "by words alone one of them"


async def test_documents_by_an_endpoint_that_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Remote()
    made = await library(tmp_path, engine, "small")
    assert (await made.retrieve("Zug?", 1))[0].source == "2.txt:1"
    engine.down = True
    assert (await made.retrieve("red box", 3))[0].source == "0.txt:1"
    assert await made.retrieve("Zug?", 1) == []
    assert "the question was not embedded, words alone decide: embeddings by 'small'" in caplog.text
    late = await library(tmp_path, engine, "small")
    assert [p.source for p in await late.retrieve("red box", 3)] == ["0.txt:1"]
    assert "small does not embed, words alone decide" in caplog.text


async def test_settings_name_the_endpoint_for_every_engine(tiny_qwen3: Path) -> None:
    url = "http://127.0.0.1:9/v1#bge"
    given = {"model": str(tiny_qwen3), "knowledge_model": url, "reward_models": {"mine": "embed+http://b"}}
    opened = open_engine(Settings.model_validate({**given, "engine": "embedded"}))
    assert opened.caps.embeds == ("served", tiny_qwen3.name, url, "mine")
    assert not opened.caps.score and opened.caps.rewards == ()
    for more in ({"engine": "vllm"}, {"engine": "openai", "upstream_url": "http://up/v1"}):
        assert open_engine(Settings.model_validate({**given, **more})).caps.embeds == (url, "mine")


@pytest.mark.parametrize("url", ["http://", "https:///v1", "http://[", "http://host:x", "http://host:99999"])
async def test_an_address_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="names no host"):
        open_engine(Settings(engine="openai", upstream_url="http://up/v1", knowledge_model=url))
