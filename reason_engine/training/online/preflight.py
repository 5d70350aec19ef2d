"""What can be known of an online run before anything heavy is imported: problems, rewards, memory, disk, serving.

Each finding is one line for the user; what would fail later raises SetupError now. Memory, in fp32: weights, gradients
and two moments of what is trained, the frozen start, the engine's own weights and the keys and values of a step's
samples, the judge's weights, one pass.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from reason_engine.data.formats.readers import open_source
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.reward_models import Endpoints, is_url
from reason_engine.errors import EngineError, SetupError
from reason_engine.settings import load_settings
from reason_engine.training.common.preflight import architecture, check_template, fits, room, size_of
from reason_engine.training.online.curriculum import Course
from reason_engine.types import ScoreRequest

if TYPE_CHECKING:
    from reason_engine.training.online.loop import Online
    from reason_engine.training.online.rollout import Actor

LOOKED_AT = 64
"""Problems that the rewards are tried on."""


def preflight(config: Online) -> list[str]:
    """What was found of model, problems, memory and disk. Raises SetupError, ModelLoadError."""
    name = architecture(config.model, config.unservable)
    check_template(config.model)
    found = [f"serving: {name}, by vLLM and the embedded engine"]
    if config.data is not None:
        found.append(open_source(config.data, config.format).statement)
    else:
        found.append(f"a mixture of {len(config.mixture)} families, drawn with seed {config.seed}")
    parameters = size_of(config.model)[0]
    advice = "lower micro_tokens, prompts, samples or max_tokens"
    found.append(fits(memory(config), parameters, advice))
    found.append(room(config.out, parameters * (2 * 2 + 12 * 2 * config.trained)))
    return found


def try_rewards(config: Online, actor: Actor) -> str:
    """What was found of the rewards; `actor` need not run. Raises SetupError naming the one that cannot judge."""
    actor.check(Course(config).take(LOOKED_AT))
    names = ", ".join(reward.verifier for reward in config.rewards)
    return f"rewards: {names}; each can judge the first {LOOKED_AT} problems"


def try_endpoints(config: Online) -> list[str]:
    """Each reward model behind a URL judges one word. Raises SetupError naming the one that does not."""
    urls = {name: url for name, url in config.reward_models.items() if is_url(url)}
    if not urls:
        return []
    keys = {name: key for name, key in load_settings().reward_keys.items() if name in urls}
    endpoints = Endpoints(urls, keys=keys)

    async def ask() -> None:
        try:
            for name, kind in endpoints.kinds.items():
                task = "token_reward" if kind == "process" else "reward"
                try:
                    await endpoints.score(ScoreRequest("preflight", ("1",), task, name, (), ((1,),)))
                except EngineError as error:
                    raise SetupError(f"reward_models.{name}: {urls[name]}: {error}") from None
        finally:
            await endpoints.close()

    asyncio.run(ask())
    return [f"reward models: {', '.join(urls)}; each has judged a word"]


def memory(config: Online) -> float:
    """Bytes."""
    total, hidden, layers, vocabulary = size_of(config.model)
    state = 4 * total * (4 * config.trained + 2)
    one_pass = 4 * config.micro_tokens * (layers * hidden * 34 + vocabulary * 4)
    kept = 4 * config.prompts * config.samples * config.max_tokens * _cell(config.model, hidden, layers)
    judge = 0 if config.judge is None else 4 * size_of(config.judge)[0]
    return state + one_pass + kept + judge


def _cell(model: Path, hidden: int, layers: int) -> int:
    """Numbers that a token leaves behind: keys and values of all layers."""
    said = ModelFolder(model).config
    heads = said.get("num_attention_heads") or 1
    groups = said.get("num_key_value_heads") or heads
    return 2 * layers * groups * (said.get("head_dim") or hidden // heads)
