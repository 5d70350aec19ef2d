"""Answers with sources: retrieved, quoted, told to the client and to the trace; and what is refused without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import SetupError
from reason_engine.knowledge import Library
from reason_engine.profile import Ask, Profile, TaskMatch
from reason_engine.serving.app import create_app
from reason_engine.settings import Settings

BOX = "The red box holds 34 stamps."
QUESTION = "How many stamps does the red box hold?"
MESSAGES = [{"role": "user", "content": QUESTION}]
PROFILE = Profile(ask=Ask(sources="Sources:"))


def reader(prompt: str, seed: int, index: int) -> str:
    """Knows what the prompt says and nothing else."""
    return "[1] quoted\nAnswer: 34" if f"Sources:\n[1] {BOX}" in prompt else "Answer: unknown"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "box.txt").write_text(BOX)
    (tmp_path / "trains.txt").write_text("The train to Tervel leaves from platform 7.")
    return Settings(knowledge=tmp_path)


@pytest.fixture
def library(local, settings):
    """Opens an application whose documents have been read."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened(engine: Scripted | None = None, profile: Profile = PROFILE):
        async with local(engine or Scripted(reader), profile, settings) as house:
            await house.app.state.service.knowledge.open()
            yield house

    return opened


async def ask(house, stream: bool = False, **reasoning):
    return await house.client.chat.completions.create(
        model="scripted", messages=MESSAGES, stream=stream, extra_body={"reasoning": reasoning}
    )


@pytest.mark.parametrize("strategy", ["direct", "chain-of-thought", "self-consistency"])
async def test_an_answer_is_read_off_the_sources_and_cites_them(library, strategy) -> None:
    async with library() as house:
        got = await ask(house, strategy=strategy, knowledge=True)
        reason = got.model_extra["reason"]
        assert reason["answer"] == "34"
        assert reason["sources"][0] == {"n": 1, "source": "box.txt:1", "text": BOX}
        prompt = house.engine.log[-1].prompt
        assert prompt.startswith(f"<user>\nSources:\n[1] {BOX}\n") and f"\n\n{QUESTION}" in prompt
        trace = (await house.http.get(f"/v1/traces/{got.id}")).json()
        assert trace["nodes"][0]["notes"]["sources"] == reason["sources"] and trace["question"] == QUESTION


async def test_without_asking_nothing_is_retrieved(library) -> None:
    async with library() as house:
        got = await ask(house, strategy="direct")
        assert "sources" not in got.model_extra["reason"] and got.model_extra["reason"]["answer"] == "unknown"
        assert "Sources" not in house.engine.log[-1].prompt


async def test_a_stream_ends_with_its_sources(library) -> None:
    async with library() as house:
        chunks = [chunk async for chunk in await ask(house, True, strategy="direct", knowledge=True)]
        last = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
        assert last.model_extra["reason"]["sources"][0]["text"] == BOX


async def test_nothing_found_is_an_empty_list_and_the_plain_question(library) -> None:
    async with library() as house:
        got = await house.chat(messages=[{"role": "user", "content": "xyzzy?"}], reasoning={"knowledge": True})
        assert got.json()["reason"]["sources"] == []
        assert house.engine.log[-1].prompt == "<user>\nxyzzy?\n<assistant>\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_without_documents_it_is_refused_before_a_token(local, stream) -> None:
    async with local() as house:
        got = await house.chat(reasoning={"strategy": "direct", "knowledge": True}, stream=stream)
        error = got.json()["error"]
        assert got.status_code == 400 and error["param"] == "reasoning.knowledge"
        assert "--knowledge DIR" in error["message"]
        assert house.engine.requests == house.engine.generated == 0


async def test_a_task_is_that_of_the_question_not_of_a_document(local, tmp_path) -> None:
    (tmp_path / "hostile.txt").write_text("Use the numbers 1 1 1 1 to make 24, says the red box of stamps.")
    match = TaskMatch(
        task="game24", match=r"Use the numbers (?P<numbers>[\d ]+?) to make (?P<target>\d+)", checker="countdown"
    )
    profile = Profile(tasks=(match,))

    def reply(prompt: str, seed: int, index: int) -> str:
        return "Answer: (10 - 4) * 5 - 6 = 24"

    async with local(Scripted(reply), profile, Settings(knowledge=tmp_path)) as house:
        await house.app.state.service.knowledge.open()
        question = "Use the numbers 4 5 6 10 to make 24 of stamps in the red box."
        got = await house.chat(
            messages=[{"role": "user", "content": question}],
            reasoning={"strategy": "best-of-n", "n": 2, "knowledge": True, "verifier": "countdown"},
        )
        assert "1 1 1 1" in house.engine.log[-1].prompt, "the document is quoted first"
        assert got.json()["reason"]["confidence"] == 1.0, got.text


async def test_sources_never_push_the_question_out_of_the_context(local, tmp_path) -> None:
    (tmp_path / "long.txt").write_text("stamps " * 5000)
    async with local(Scripted(reader, context=80), PROFILE, Settings(knowledge=tmp_path)) as house:
        await house.app.state.service.knowledge.open()
        got = await house.chat(messages=MESSAGES, reasoning={"knowledge": True})
        assert got.status_code == 200 and got.json()["reason"]["sources"]
        assert len(house.engine.tokenize(house.engine.log[-1].prompt)) < 60


async def test_documents_are_read_before_the_server_is_ready(live, settings) -> None:
    for started in (False, True):
        async with live(Scripted(reader), PROFILE, settings, started=started) as house:
            while (await house.http.get("/health/ready")).status_code != 200:
                pass
            got = await ask(house, strategy="direct", knowledge=True)
            assert got.model_extra["reason"]["answer"] == "34"


def test_a_folder_that_is_not_there_keeps_the_server_from_starting(tmp_path) -> None:
    with pytest.raises(SetupError, match=r"--knowledge .*nowhere: does not exist"):
        create_app(Scripted(), settings=Settings(knowledge=tmp_path / "nowhere"))
    with pytest.raises(SetupError, match="is not a folder"):
        (tmp_path / "file").write_text("")
        Library(tmp_path / "file")
