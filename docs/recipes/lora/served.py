"""Whether LoRA served beside its base says what the merged checkpoint says: greedy answers to the same questions."""

import asyncio
import sys
from pathlib import Path

from reason_engine.data import STEPS
from reason_engine.engines.embedded.front import Embedded
from reason_engine.recipes.units import UnitsTask as Units
from reason_engine.types import GenerateRequest, Message, Sampling


async def answers(model: Path, adapter: Path | None, prompts: list[str]) -> list[str]:
    engine = Embedded(model, inline=True, threads=1, dtype="float32")
    await engine.start()
    try:
        if adapter:
            await engine.load_adapter("new", str(adapter))

        async def one(number: int, prompt: str) -> str:
            request = GenerateRequest(
                f"{number}", prompt, 1, Sampling(max_tokens=60, temperature=0.0), "new" if adapter else None
            )
            return "".join([chunk.text async for chunk in engine.generate(request)])

        asked = [engine.render_chat([Message("user", f"{text}\n{STEPS}")]) for text in prompts]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(number, prompt)) for number, prompt in enumerate(asked)]
        return [task.result() for task in running]
    finally:
        await engine.close()


base, merged = (Path(word) for word in sys.argv[1:3])
problems = Units.model_validate({"levels": "1", "kind": "time"}).problems(int(sys.argv[3]), 0, None)
texts = [problem.question for problem in problems]
first = asyncio.run(answers(base, merged / "adapter", texts))
second = asyncio.run(answers(merged, None, texts))
plain = asyncio.run(answers(base, None, texts))
same = sum(one == other for one, other in zip(first, second, strict=True))
changed = sum(one != other for one, other in zip(first, plain, strict=True))
print(f"served beside the base and merged say the same: {same} of {len(texts)}; the base says other: {changed}")
