"""Do the embedded engine and llama.cpp say the same of a GGUF file? Against a running llama-server with the same file.

    llama-server -m FILE.gguf --port 8080 &
    .venv/bin/python -m tests.bench.gguf_agreement FILE.gguf --url http://127.0.0.1:8080 [--weights int8]

Texts are forced: at each of their places both give the distribution of the next token, llama-server its `--top` most
likely ones. The KL divergence from llama.cpp's to ours is summed over those and over all others as one, which makes it
a lower bound that nothing is missing from while the others are unlikely; their share is printed. Token ids of the texts
are compared too. Exit status 1 where the mean divergence is above --most, or where tokens differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import torch

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.loading import load_decoder
from reason_engine.engines.embedded.prefill import advance, new_segment
from reason_engine.types import Message

ROOT = Path(__file__).parents[2]
QUESTIONS = (
    "A farmer has 17 sheep; all but 9 run away. How many are left? Explain step by step.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "What is the capital of France, and what is it known for?",
)


def texts(chat: ChatFormat) -> list[str]:
    """Prompts in the model's own form with answers begun, prose and code."""
    begun = "Let us think. First, 17 - 9 = 8; but the question is how many are left, so the answer is"
    asked = [chat.render_chat([Message("user", question)]) + begun for question in QUESTIONS]
    prose = (ROOT / "CONTRIBUTING.md").read_text("utf-8")[:3000]
    code = Path(__file__).read_text("utf-8")[:3000]
    return [*asked, prose, code, '1, 2, 3 … Straße, naïve, 日本語, 12345.678\n\n\t"it\'s"']


def post(url: str, body: dict[str, Any]) -> Any:
    """What the server answers."""
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=600) as reply:
        return json.load(reply)


def theirs(url: str, ids: list[int], top: int) -> dict[int, float]:
    """Log probabilities of the most likely tokens after these."""
    asked = {
        "prompt": ids, "n_predict": 1, "n_probs": top, "ignore_eos": True, "cache_prompt": True, "temperature": 1.0,
        "top_k": 0, "top_p": 1.0, "min_p": 0.0, "post_sampling_probs": False,
    }  # fmt: skip
    found = post(f"{url}/completion", asked)["completion_probabilities"][0]["top_logprobs"]
    return {int(one["id"]): float(one["logprob"]) for one in found}


def ours(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    """Log probabilities at every place, (T, V)."""
    with torch.inference_mode():
        segment = new_segment(decoder, ids, keep=len(ids))
        whole: list[Any] = []
        while not whole:
            whole = advance(decoder, [segment], 4096, None)
        return torch.log_softmax(decoder.logits(whole[0][1]), -1)


def divergence(their: dict[int, float], our: torch.Tensor) -> tuple[float, float]:
    """KL from theirs to ours with all tokens that they do not name as one, and the share of those."""
    logs = torch.tensor(list(their.values()), dtype=torch.float64)
    same = our[list(their)].double()
    rest, other = 1 - logs.exp().sum(), 1 - same.exp().sum()
    lost = float((logs.exp() * (logs - same)).sum())
    if rest > 1e-9:
        lost += float(rest * (rest.log() - other.clamp_min(1e-12).log()))
    return lost, float(rest.clamp_min(0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--weights", default="full", choices=("auto", "full", "int8"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--places", type=int, default=400, help="of all texts, evenly spread")
    parser.add_argument("--top", type=int, default=200)
    parser.add_argument("--most", type=float, default=0.02)
    options = parser.parse_args()
    chat = ChatFormat.load(options.file)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoder = load_decoder(options.file, dtype=options.dtype, threads=options.threads, weights=options.weights)
    took, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"loaded as {decoder.precision} in {took:.1f} s, {peak / 1024:.0f} MiB more at the most than before")
    lost, shares, alike, differing = list[float](), list[float](), 0, 0
    written = texts(chat)
    tokens = [chat.tokenize_bare(text) for text in written]
    for text, ids in zip(written, tokens, strict=True):
        asked = {"content": text, "add_special": False, "parse_special": True}
        differing += post(f"{options.url}/tokenize", asked)["tokens"] != ids
    step = max(1, sum(map(len, tokens)) // options.places)
    for ids in tokens:
        logs = ours(decoder, ids)
        for at in range(0, len(ids), step):
            their = theirs(options.url, ids[: at + 1], options.top)
            one, share = divergence(their, logs[at])
            lost.append(one)
            shares.append(share)
            alike += max(their, key=lambda token: their[token]) == int(logs[at].argmax())
    mean, worst = sum(lost) / len(lost), max(lost)
    print(f"texts tokenised otherwise: {differing} of {len(tokens)} ({sum(map(len, tokens))} tokens)")
    print(f"KL at {len(lost)} places: mean {mean:.5f}, largest {worst:.4f} nats; the same most likely token at "
          f"{alike / len(lost):.1%}; {sum(shares) / len(shares):.2%} outside the top {options.top}")  # fmt: skip
    return 0 if mean <= options.most and not differing else 1


if __name__ == "__main__":
    sys.exit(main())
