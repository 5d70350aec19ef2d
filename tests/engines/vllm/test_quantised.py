"""Quantised checkpoints on vLLM's CPU build, against the embedded engine, which multiplies them exactly.

On a processor without VNNI or AVX-512 this fails without `cpu_repairs`: wrong sums, or a product that is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from reason_engine.compression.run import prepare, run
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.types import GenerateRequest, Sampling
from tests.engines.vllm.tiny import MARKS, ids
from tests.models import write_model
from tests.quantised import write_int4

pytestmark = MARKS
PROMPTS = [f"{n} and {n * 7}" for n in range(12)]
LOGPROBS = Sampling(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=0)
QUIET = ["report=false"]
Answers = list[tuple[tuple[int, ...], float]]
"""Tokens of each prompt, and the log-probability of the first of them."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("q") / "tiny", head_dim=32, hidden_size=128, intermediate_size=256)


async def answers(engine: VllmEngine | Embedded) -> Answers:
    """Tokens of each prompt, and the log-probability of the first of them."""
    await engine.start()
    found: Answers = []
    for number, prompt in enumerate(PROMPTS):
        request = GenerateRequest(str(number), prompt, sampling=LOGPROBS)
        chunks = [chunk async for chunk in engine.generate(request)]
        found.append((ids(chunks), next(one.logprob for chunk in chunks for one in chunk.logprobs)))
    await engine.close()
    return found


async def int8(model: Path, out: Path) -> Path:
    run("int8", prepare("int8", None, QUIET), str(model), out)
    return out


async def int4(model: Path, out: Path) -> Path:
    return write_int4(model, out, symmetric=True)


def agreement(ours: Answers, theirs: Answers) -> float:
    """The share of equal tokens where both had the same text before: all up to the first difference of each answer."""
    equal = different = 0
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        same = next((place for place, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
        equal, different = equal + same, different + (same < len(a))
    return equal / (equal + different)


def test_agreement_counts_up_to_the_first_difference() -> None:
    assert agreement([((1, 2, 3), 0.0), ((1, 2, 3), 0.0)], [((1, 2, 3), 0.0), ((1, 9, 9), 0.0)]) == 4 / 5


@pytest.mark.parametrize(("make", "least", "apart"), [(int8, 1.0, 1e-3), (int4, 0.9, 0.1)])
async def test_both_engines_say_the_same(
    model: Path, tmp_path: Path, make: Callable[[Path, Path], Awaitable[Path]], least: float, apart: float
) -> None:
    """8 bits in fp32 alike; 4 bits nearly, which vLLM computes in bf16 where the processor has AVX-512."""
    folder = await make(model, tmp_path / "q")
    ours = await answers(Embedded(folder, inline=True, dtype="float32"))
    theirs = await answers(VllmEngine(VllmConfig(model=str(folder), mode="inprocess")))
    assert agreement(ours, theirs) >= least
    assert max(abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True)) < apart


@pytest.mark.skipif(find_spec("gptqmodel") is None, reason="gptqmodel is not installed here (tests/vllm_env.sh)")
async def test_gptq_makes_what_both_engines_serve(model: Path, tmp_path: Path) -> None:
    """The whole way: the command's method, its file in AutoGPTQ's format, both engines on it, better than rounding."""
    mixture = "mixture=[{family: words, share: 1}]"
    run("gptq", prepare("gptq", None, [*QUIET, mixture, "rows=32", "group=32"]), str(model), tmp_path / "q")
    ours = await answers(Embedded(tmp_path / "q", inline=True, dtype="float32"))
    theirs = await answers(VllmEngine(VllmConfig(model=str(tmp_path / "q"), mode="inprocess")))
    assert agreement(ours, theirs) >= 0.9
    assert max(abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True)) < 0.1
