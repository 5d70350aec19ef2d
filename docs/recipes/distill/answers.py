"""A teacher's answers to problems that nobody labelled: rows of prompt and completion.

    python docs/recipes/distill/answers.py TEACHER PROBLEMS.jsonl OUT.jsonl
    python docs/recipes/distill/answers.py --labelled ROWS.jsonl          # the same form, of rows with answers

Of a row of PROBLEMS.jsonl (as `reason data generate` writes them) the first question alone is read. Greedy, each cut at
60 tokens; an answer that does not end is left out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from reason_engine.engines.embedded.front import Embedded
from reason_engine.types import GenerateRequest, Message, Sampling


async def main(teacher: Path, problems: Path, out: Path) -> None:
    lines = problems.read_text("utf-8").splitlines()
    prompts = [json.loads(line)["messages"][0]["content"] for line in lines]
    engine = Embedded(teacher, inline=True, threads=1, max_rows=128)
    await engine.start()
    turn, rows = asyncio.Semaphore(256), list[dict[str, str]]()

    async def one(number: int, prompt: str) -> None:
        async with turn:
            ids = tuple(engine.tokenize(engine.render_chat((Message("user", prompt),))))
            text, finish = "", None
            async for chunk in engine.generate(GenerateRequest(f"a-{number}", ids, 1, Sampling(60, 0.0))):
                text, finish = text + chunk.text, chunk.finish_reason or finish
            if finish == "stop":
                rows.append({"prompt": prompt, "completion": text})

    async with asyncio.TaskGroup() as group:
        for number, prompt in enumerate(prompts):
            group.create_task(one(number, prompt))
    await engine.close()
    rows.sort(key=lambda row: row["prompt"])
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    print(f"{len(rows)} of {len(prompts)} answered")


def labelled(rows: Path) -> None:
    """The same form of rows that have answers, on standard output."""
    for line in rows.read_text("utf-8").splitlines():
        asked, said, *_ = json.loads(line)["messages"]
        print(json.dumps({"prompt": asked["content"], "completion": said["content"]}))


if __name__ == "__main__":
    if sys.argv[1] == "--labelled":
        labelled(Path(sys.argv[2]))
    else:
        asyncio.run(main(*map(Path, sys.argv[1:4])))
