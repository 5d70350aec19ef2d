"""Drafting inside vLLM: nothing, our automaton (`sam`) and vLLM's own n-grams in turns. Runs in `.venv-vllm`.

    .venv-vllm/bin/python -m tests.bench.bench_vllm_draft --data DIR [--rounds 5] [--each 2] [--tokens 64] [--kinds rag]

As in bench_draft a random model of 100M parameters says recorded texts: the logits of each place are replaced, after
they were computed, by ones that leave the recorded token (one stream, greedy). Then sixteen paths of one prompt,
sampled: of that model, whose texts are noise without repeats, and of reason-nano on a word problem. Each method has an
engine in a process of its own, since n-grams load numba, and so does our drafter; the parent asks one after the other.
Times are processor time of that process. No two rounds have the same prompt, for the automaton drafts from earlier
answers to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reason_engine.engines.open import bundled_model
from reason_engine.engines.vllm.drafts import speculation
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.types import GenerateRequest, Message, Sampling
from tests.bench._forced import Text, recorded, tokenizer
from tests.bench._measure import machine
from tests.bench.bench_draft import LARGE, PROBLEM, Speeds, compared, options
from tests.models import write_model

METHODS: tuple[Any, ...] = ("none", "sam", "ngram")


class Forced:
    """What the one stream of this process has to say, and how often the model ran for it."""

    def __init__(self) -> None:
        self.text = Text((), ())
        self.steps = 0
        self._places: Any = None

    def install(self) -> None:
        """Into every model that this process loads from now on."""
        from vllm.v1.worker.cpu_model_runner import CPUModelRunner  # pyright: ignore[reportMissingImports]

        load = CPUModelRunner.load_model

        def loaded(runner: Any, *given: Any, **named: Any) -> None:
            load(runner, *given, **named)
            logits_of = runner.model.compute_logits
            runner.model.register_forward_pre_hook(self._seen, with_kwargs=True)
            runner.model.compute_logits = lambda states, *rest: self._forced(logits_of(states, *rest))

        CPUModelRunner.load_model = loaded

    def _seen(self, _: Any, given: Any, named: dict[str, Any]) -> None:
        self.steps += 1
        self._places = named["positions"]

    def _forced(self, logits_BV: Any) -> Any:
        """The recorded token alone is left; without a text, as they are."""
        if self.text.said:
            for row, place in enumerate(self._places[-logits_BV.shape[0] :].tolist()):
                at = min(max(0, place + 1 - len(self.text.prompt)), len(self.text.said) - 1)
                logits_BV[row] = -1e4
                logits_BV[row, self.text.said[at]] = 0.0
        return logits_BV


async def child(model: Path, method: Any, say: bool, longest: int) -> None:
    """Answers a line of JSON, a list of texts, with [processor seconds, tokens a step]."""
    forced = Forced()
    forced.install()
    spec = None if method == "none" else speculation(method)
    engine = VllmEngine(VllmConfig(model=str(model), mode="inprocess", speculative_config=spec))
    await engine.start()
    for turn, line in enumerate(sys.stdin):
        some = [Text((3 + turn, *one["prompt"]), tuple(one["said"])) for one in json.loads(line)]
        asked = engine.render_chat([Message("user", PROBLEM.replace("12 hens", f"{12 + turn} hens"))])
        votes = Text(tuple(engine.tokenize(asked + "Let me solve it step by step.\n")), ())
        forced.steps, made, begun = 0, 0, time.process_time()
        for i, text in enumerate(some or [votes]):
            forced.text = text if say else Text((), ())
            most, n, warmth = (len(text.said), 1, 0.0) if say else (longest, 16, 0.7)
            sampling = Sampling(max_tokens=most, temperature=warmth, seed=turn, ignore_eos=True, draft=method)
            request = GenerateRequest(f"{turn}-{i}", text.prompt, n, sampling)
            said: list[int] = []
            async with aclosing(engine.generate(request)) as chunks:
                async for chunk in chunks:
                    made += chunk.token_count
                    said += chunk.token_ids
            assert not say or tuple(said) == text.said
        spent = time.process_time() - begun
        print(json.dumps([spent, made / forced.steps]), flush=True)
    await engine.close()


class Engines:
    """A process for each method, all with the same model."""

    def __init__(self, model: Path, say: bool, longest: int, stack: ExitStack) -> None:
        self._children: dict[Any, subprocess.Popen[str]] = {}
        for method in METHODS:
            command = [sys.executable, "-m", __spec__.name, "--child", method, "--model", str(model)]
            command += ["--tokens", str(longest)]
            started = subprocess.Popen(
                [*command, *(["--say"] if say else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._children[method] = stack.enter_context(started)
            stack.callback(started.stdin.close)  # pyright: ignore[reportOptionalMemberAccess]

    def compare(self, kind: str, some: list[Text], rounds: int) -> None:
        """A round warms up; then each method in turn, another one first each time."""
        seen: list[Speeds] = []
        for turn in range(-1, rounds):
            first = turn % len(METHODS)
            speeds = {method: self._run(method, some) for method in METHODS[first:] + METHODS[:first]}
            if turn >= 0:
                seen.append({method: speeds[method] for method in METHODS})
        compared(kind, seen)

    def _run(self, method: str, some: list[Text]) -> tuple[float, float]:
        known = self._children[method]
        assert known.stdin and known.stdout
        known.stdin.write(json.dumps([asdict(one) for one in some]) + "\n")
        known.stdin.flush()
        while line := known.stdout.readline():
            if line.startswith("["):
                spent, steps = json.loads(line)
                return spent, steps
        raise RuntimeError(f"the engine of {method} ended")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--say", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        asyncio.run(child(args.model, args.child, args.say, args.tokens))
        return
    print(machine(), file=sys.stderr)
    if args.data:
        with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
            folder = write_model(Path(made), dtype="float32", **LARGE)
            texts = recorded(args.data, tokenizer(args.data, folder), args.each, args.tokens)
            engines = Engines(folder, True, args.tokens, stack)
            for kind, some in texts.items():
                if not args.kinds or kind in args.kinds:
                    engines.compare(f"vLLM, {kind}", some, args.rounds)
    with tempfile.TemporaryDirectory() as made:
        large = write_model(Path(made), dtype="float32", **LARGE)
        for name, model in (("100M", large), ("nano", bundled_model() or Path())):
            with ExitStack() as stack:
                engines = Engines(model, False, args.tokens, stack)
                engines.compare(f"vLLM, 16 paths, {name}", [], args.rounds)


if __name__ == "__main__":
    main()
