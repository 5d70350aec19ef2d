"""Paths of one prompt through our server, beside transformers' `generate`, vLLM's CPU build and llama.cpp, in one run.

    python -m tests.bench.bench_peers MODEL [--weights full,int8] [--paths 1,16] [--prompts 128,1000] [--tokens 128]
        [--rounds 5] [--vllm PYTHON] [--llama BIN --gguf Q8_0=FILE,Q4_0=FILE] [--serve "--setting value"]

Arms take turns: every round times each arm once, and a ratio is of two arms of one round; its interval is of the
median over rounds. A round has a prompt of its own, all paths of it have distinct seeds at temperature 0.7, and none
ends before its last token. `whole` is new tokens over the time from request to end, the prompt's reading included;
`decode` leaves out the time to the first token, as llama.cpp's own figures do (`llama-bench -p 0 -n`,
`llama-batched-bench -pps`), beside which it stands. `--vllm` is the interpreter of an environment with vLLM, where our
server runs on it. Every arm may use all cores that this process may.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.bench._measure import machine, paired, server

SENTENCE = "A merchant sold {a} pounds of rice and {b} pounds of salt on day {c}, and wrote it down. "


@dataclass(frozen=True)
class Rate:
    """Tokens a second; None where the arm has no such figure."""

    whole: float | None
    decode: float | None


Arm = Callable[[int, int, int, int], Rate]
"""(round, paths, prompt tokens, new tokens)."""


def main() -> None:
    """Print the rates and the ratios, a table each."""
    options = _options()
    with ExitStack() as stack:
        arms: dict[str, Arm] = {}
        for weights in options.weights.split(","):
            serve = ["--weights", weights, *shlex.split(options.serve)]
            started = stack.enter_context(server(str(options.model), "--engine", "embedded", *serve))
            arms[f"ours {weights}"] = _served(started.url, options.model)
        if options.vllm:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
            vllm = server(str(options.model), "--engine", "vllm", "--context", "2048", python=options.vllm)
            arms["vLLM bfloat16"] = _served(stack.enter_context(vllm).url, options.model)
        arms["generate bfloat16"] = stack.enter_context(_generate(options.model))
        for pair in filter(None, options.gguf.split(",")):
            name, _, file = pair.partition("=")
            arms[f"llama.cpp {name}"] = _llama(options.llama, Path(file))
        print(machine(), f"\n{'python -m tests.bench.bench_peers ' + shlex.join(sys.argv[1:])}\n")
        for prompt in _numbers(options.prompts):
            for paths in _numbers(options.paths):
                _compare(arms, paths, prompt, options.tokens, options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    for name, usual in (("weights", "full,int8"), ("paths", "1,16"), ("prompts", "128,1000"), ("gguf", "")):
        parser.add_argument(f"--{name}", default=usual)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vllm", type=Path)
    parser.add_argument("--llama", type=Path, default=Path())
    parser.add_argument("--serve", default="")
    return parser.parse_args()


def _compare(arms: dict[str, Arm], paths: int, prompt: int, tokens: int, rounds: int) -> None:
    rates: dict[str, list[Rate]] = {name: [] for name in arms}
    for number in range(-1, rounds):
        order = list(arms) if number % 2 else list(arms)[::-1]
        for name in order:
            made = arms[name](number, paths, prompt, tokens)
            if number >= 0:  # the round before the first warms all up
                rates[name].append(made)
    print(f"## {paths} paths of a prompt of {prompt} tokens, {tokens} new tokens, {rounds} rounds\n")
    print("| arm | whole, tokens/s | decode, tokens/s |\n|---|---:|---:|")
    for name, made in rates.items():
        print(f"| {name} | {_median(rate.whole for rate in made)} | {_median(rate.decode for rate in made)} |")
    print("\n| ratio | whole | decode |\n|---|---|---|")
    ours = [name for name in arms if name.startswith("ours")]
    for name in ours:
        for other in [one for one in arms if one not in ours]:
            both = list(zip(rates[name], rates[other], strict=True))
            whole = [a.whole / b.whole for a, b in both if a.whole and b.whole]
            decode = [a.decode / b.decode for a, b in both if a.decode and b.decode]
            print(f"| {name} / {other} | {paired(whole) if whole else '-'} | {paired(decode) if decode else '-'} |")
    print(flush=True)


def _median(values: Iterator[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.1f}" if known else "-"


def _question(number: int, length: int, count: Callable[[str], int]) -> str:
    """A text of about so many tokens that no other round's begins like."""
    text, place = f"Story {number * 7919 + length}. ", 0
    while count(text) < length - 45:
        place += 1
        text += SENTENCE.format(a=place * 3 + number, b=place * 5, c=place)
    return text + "Go on with this story for a long while."


def _served(url: str, model: Path) -> Arm:
    """Through a server of ours, streamed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    name = httpx2.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"]

    def run(number: int, paths: int, prompt: int, tokens: int) -> Rate:
        text = _question(number, prompt, lambda text: len(tokenizer(text)["input_ids"]))
        body = {
            "model": name, "messages": [{"role": "user", "content": text}], "n": paths, "max_tokens": tokens,
            "temperature": 0.7, "seed": 1000 * number, "ignore_eos": True, "reasoning": {"strategy": "direct"},
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        begun, first, made = time.monotonic(), 0.0, 0
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=600) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                first = first or ('"content":' in line and time.monotonic()) or 0.0
                if line.startswith("data: {") and '"usage":{' in line.replace(" ", ""):
                    made = json.loads(line[6:])["usage"]["completion_tokens"]
        end = time.monotonic()
        assert made == paths * tokens, (made, paths, tokens)
        return Rate(made / (end - begun), (made - paths) / (end - first))

    return run


@contextmanager
def _generate(model: Path) -> Iterator[Arm]:
    """transformers, in a process of its own at the better of one and all threads."""
    with subprocess.Popen(
        [sys.executable, "-c", _GENERATE, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asking, answers = process.stdin, process.stdout
        assert asking and answers

        def run(number: int, paths: int, prompt: int, tokens: int) -> Rate:
            asking.write(json.dumps([_question(number, prompt, lambda t: len(t) // 4), prompt, paths, tokens]) + "\n")
            asking.flush()
            return Rate(paths * tokens / float(answers.readline()), None)

        try:
            yield run
        finally:
            process.kill()


def _llama(folder: Path, file: Path) -> Arm:
    """llama.cpp's own benchmarks: a path alone without a prompt, several behind one prompt."""
    threads = str(len(os.sched_getaffinity(0)))

    def run(number: int, paths: int, prompt: int, tokens: int) -> Rate:
        common = ["-m", str(file), "-t", threads]
        if paths == 1:
            printed = _printed([folder / "llama-bench", *common, "-p", "0", "-n", str(tokens), "-r", "1", "-o", "json"])
            return Rate(None, json.loads(printed)[0]["avg_ts"])
        shape = ["-npp", str(prompt), "-ntg", str(tokens), "-npl", str(paths), "-pps"]
        room = str(prompt + paths * tokens + 256)
        printed = _printed([folder / "llama-batched-bench", *common, *shape, "-c", room, "--output-format", "jsonl"])
        row = next(json.loads(line) for line in printed.splitlines() if line.startswith("{"))
        return Rate(None, row["speed_tg"])

    return run


def _printed(command: Sequence[str | Path]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _numbers(text: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d+", text)]


_GENERATE = """
import json, os, sys, time
import torch, transformers
transformers.logging.set_verbosity_error()
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
best = {}
def run(ids, paths, tokens):
    begun = time.monotonic()
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.7, top_k=0,
            top_p=1.0, repetition_penalty=1.0, num_return_sequences=paths, max_new_tokens=tokens,
            min_new_tokens=tokens, pad_token_id=0)
    assert out.shape == (paths, ids.shape[1] + tokens)
    return time.monotonic() - begun
for line in sys.stdin:
    text, prompt, paths, tokens = json.loads(line)
    ids = torch.tensor([(tokenizer(text)["input_ids"] * 8)[:prompt]])
    if paths not in best:
        took = {}
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            torch.set_num_threads(threads)
            run(ids, paths, 4)
            took[threads] = run(ids, paths, 16)
        best[paths] = min(took, key=took.get)
    torch.set_num_threads(best[paths])
    print(run(ids, paths, tokens), flush=True)
"""


if __name__ == "__main__":
    main()
