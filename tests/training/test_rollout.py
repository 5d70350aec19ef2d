"""Rollouts: the engine takes new weights, draws by seed and place, and agrees with the trainer on what it drew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import ModelLoadError, RequestError, SetupError
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.types import GenerateRequest, Problem, Sampling
from tests.models import write_model
from tests.training.online import config

if TYPE_CHECKING:
    from reason_engine.training.online.actor import Group

PROMPT = tuple(range(60, 90))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("other"), seed=7)


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def texts(groups: Sequence[Group]) -> list[str]:
    return [path.text for group in groups for path in group.paths]


async def drawn(engine: Embedded, name: str, most: int = 12) -> tuple[tuple[int, ...], int]:
    """Token ids and how many prompt tokens were found in the cache."""
    ids: tuple[int, ...] = ()
    cached = 0
    async for chunk in engine.generate(GenerateRequest(name, PROMPT, 1, Sampling(most, 0.0, ignore_eos=True))):
        ids, cached = ids + chunk.token_ids, cached + chunk.cached_tokens
    return ids, cached


async def with_engine(folder: Path, work: Callable[[Embedded], Any]) -> Any:
    engine = Embedded(folder, inline=True, threads=1)
    await engine.start()
    try:
        return await work(engine)
    finally:
        await engine.close()


def test_an_engine_goes_on_with_the_weights_it_is_given(policy: Path, other: Path) -> None:
    given = tensors(other)

    async def swapped(engine: Embedded) -> None:
        before, _ = await drawn(engine, "a")
        assert await drawn(engine, "b") == (before, 24 + 5)  # all but the last token of the prompt
        named = engine.info.fingerprint
        await engine.take_weights(given)
        for tensor in given.values():
            tensor.zero_()  # what the trainer does to its own tensors later is its own affair
        assert engine.info.fingerprint == f"{named}+1"
        assert await drawn(engine, "c") == wanted
        assert wanted[0] != before
        await engine.take_weights(tensors(policy))
        assert await drawn(engine, "d") == (before, 0)
        assert engine.info.fingerprint == f"{named}+2"

    wanted = asyncio.run(with_engine(other, lambda engine: drawn(engine, "x")))
    assert wanted[1] == 0
    asyncio.run(with_engine(policy, swapped))


def test_weights_are_refused_while_something_runs_and_where_they_do_not_fit(policy: Path) -> None:
    async def refused(engine: Embedded) -> None:
        running = engine.generate(GenerateRequest("long", PROMPT, 1, Sampling(400, 1.0, ignore_eos=True)))
        await anext(running)
        with pytest.raises(RequestError, match="while nothing runs"):
            await engine.take_weights(tensors(policy))
        await running.aclose()
        before = await drawn(engine, "a")
        for changed, said in (({}, "no tensor"), ({"model.norm.weight": None}, r"norm\.weight is \(3,\)")):
            import torch

            wrong = {**tensors(policy), **{name: torch.zeros(3) for name in changed}} if changed else {}
            with pytest.raises(ModelLoadError, match=said):
                await engine.take_weights(wrong)
        assert (await drawn(engine, "b"))[0] == before[0]

    asyncio.run(with_engine(policy, refused))


def test_engine_and_trainer_agree_on_what_was_drawn(policy: Path, other: Path, tmp_path: Path) -> None:
    import torch

    from reason_engine.training.common.models import load_or_build
    from reason_engine.training.common.policy import Policy
    from reason_engine.training.online.actor import Actor
    from reason_engine.training.online.environment import Curriculum

    made = config(GrpoConfig, policy, tmp_path, rewards=[{"verifier": "process-rules", "process": True}], max_tokens=20)
    tasks = Curriculum(made).take(2)
    model, _ = load_or_build(config(GrpoConfig, other, tmp_path))
    with Actor(made) as actor:
        first = actor.sample(tasks, 3, "0")
        assert texts(actor.sample(tasks, 3, "0")) == texts(first)
        assert texts(actor.sample(tasks, 3, "1")) != texts(first)
        assert len({path.text for path in first[0].paths}) == 3
        actor.take_weights(model)
        groups = actor.sample(tasks, 3, "0")
    assert texts(groups) != texts(first)
    rollouts = [one for group in groups for one in group.rollouts]
    paths = [path for group in groups for path in group.paths]
    for most in (10, 10_000):  # alone and together
        found = Policy(model, 1.0, "fp32").measure(rollouts, most)
        for values, path in zip(found, paths, strict=True):
            said = torch.tensor([token.logprob for token in path.logprobs])
            torch.testing.assert_close(values, said, atol=2e-4, rtol=1e-4)
    hot, entropy = Policy(model, 2.0, "fp32").logprobs(rollouts)
    assert hot.mean() != torch.cat(found).mean() and (entropy > 0).all()


def test_a_prompt_without_room_is_refused(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.online.actor import Actor
    from reason_engine.training.online.environment import TrainingProblem

    made = config(GrpoConfig, policy, tmp_path, max_tokens=500)
    with Actor(made) as actor, pytest.raises(SetupError, match="max_tokens: a prompt of"):
        actor.sample([TrainingProblem(Problem("Why? " * 20))], 2, "0")
