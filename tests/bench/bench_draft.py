"""Speculative drafting: what the automaton costs, and what drafts win on recorded texts and on votes.

    python -m tests.bench.bench_draft [--data DIR] [--rounds 5] [--each 2] [--tokens 64] [--kinds rag,...]
        [--plain] [--nano] [--parts automaton,repeats,votes,large-votes,texts]

`texts`: a random model of 100M parameters, whose weights mean nothing, says recorded texts (`_forced`): reference
answers of Spec-Bench and HumanEval, one stream. Each round times no drafts, `sam` and `ngram` on the embedded engine,
and plain `generate` and its prompt lookup in transformers, in turns, on processor time. `votes`: sixteen paths of one
word problem by reason-nano; `large-votes`: the same, forced on the large model. Without --data only what needs none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import bundled_model
from reason_engine.engines.suffix_automaton import SuffixAutomaton
from reason_engine.types import DraftBy, GenerateRequest, Message, Sampling
from tests.bench._forced import VOCAB, Force, Text, forced, recorded, tokenizer
from tests.bench._measure import machine, paired
from tests.models import write_model

LARGE: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 1024, "vocab_size": 24_000,
}  # fmt: skip
PROBLEM = (
    "A farmer has 12 hens. He buys 7 more hens, and each hen lays 3 eggs. He then sells 20 eggs and "
    "packs the rest in boxes of 6. How many eggs does he pack?"
)
Speeds = dict[str, tuple[float, float]]
"""By method: processor seconds, and tokens a step of the model."""


def automaton(sizes: tuple[int, ...] = (4096, 16384, 65536, 131072)) -> None:
    """Processor microseconds to grow by a token and find the match, at each length of text."""
    rng = random.Random(0)
    tokens: list[int] = []
    while len(tokens) < max(sizes):  # repeats of all lengths between words by Zipf
        if tokens and rng.random() < 0.1:
            at = rng.randrange(len(tokens))
            tokens += tokens[at : at + rng.randrange(3, 30)]
        tokens.append(int(32_000 ** rng.random()))
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(5):
        text, done = SuffixAutomaton().begin(), 0
        for size in sizes:
            text.extend(tokens[done : size - 2048])
            begun = time.process_time()
            for token in tokens[size - 2048 : size]:
                text.extend((token,))
                text.after(text.repeated(), 8)
            costs[size].append((time.process_time() - begun) / 2048 * 1e6)
            done = size
    told("automaton, µs a token", {str(size): round(statistics.median(c), 1) for size, c in costs.items()})


async def ask(engine: Embedded, name: str, text: Text, n: int, tokens: int, draft: DraftBy, seed: int) -> None:
    sampling = Sampling(max_tokens=tokens, temperature=0.7, seed=seed, ignore_eos=True, draft=draft)
    made = 0
    async with aclosing(engine.generate(GenerateRequest(name, text.prompt, n, sampling))) as chunks:
        async for chunk in chunks:
            made += chunk.token_count
    assert made == n * tokens


async def texts(data: Path, rounds: int, each: int, most: int, kinds: list[str], plain: bool, small: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        if small and (bundled := bundled_model()):
            folder, words = bundled, Tokenizer.from_file(str(bundled / "tokenizer.json"))
        else:
            folder = write_model(Path(made), dtype="bfloat16", **LARGE)
            words = tokenizer(data, folder)
            assert words.get_vocab_size() <= VOCAB
        engine = Embedded(folder, inline=True)
        await engine.start()
        baseline = None if plain else Baseline(folder, engine.chosen.dtype if engine.chosen else "bfloat16")
        for kind, some in recorded(data, words, each, most).items():
            if kinds and kind not in kinds:
                continue
            seen: list[Speeds] = []
            for turn in range(-1, rounds):
                speeds: Speeds = {}
                methods: list[DraftBy] = ["none", "sam", "ngram"]
                for method in methods[turn % 3 :] + methods[: turn % 3]:
                    speeds[method] = await said(engine, some, method, f"{kind}{turn}{method}")
                if baseline:
                    speeds["generate"] = baseline.run(some, lookup=False)
                    speeds["lookup"] = baseline.run(some, lookup=True)
                if turn >= 0:
                    seen.append(speeds)
            compared(kind, seen)
        await engine.close()


async def said(engine: Embedded, some: list[Text], method: DraftBy, name: str) -> tuple[float, float]:
    """Processor seconds for these texts one after another, and tokens a step."""
    with forced(some) as counted:
        begun = time.process_time()
        for i, text in enumerate(some):
            await ask(engine, f"{name}{i}", text, 1, len(text.said), method, i)
        return time.process_time() - begun, sum(len(t.said) - 1 for t in some) / max(1, counted[0])


async def votes(rounds: int, *, large: bool) -> None:
    """Sixteen paths of one problem: by nano itself, or what nano said forced on a model of 100M parameters."""
    nano = Embedded(bundled_model() or Path(), inline=True)
    await nano.start()
    prompt = tuple(nano.tokenize(nano.render_chat([Message("user", PROBLEM)]) + "Let me solve it step by step.\n"))
    sampling = Sampling(max_tokens=64, temperature=0.7, seed=0, draft="none", ignore_eos=True)
    paths: dict[int, tuple[int, ...]] = {}
    async for chunk in nano.generate(GenerateRequest("paths", prompt, 16, sampling)):
        paths[chunk.index] = paths.get(chunk.index, ()) + chunk.token_ids
    known = [Text(prompt, paths[i]) for i in range(16)]
    if not large:
        await timed("16 paths, nano", nano, known, rounds)
        await nano.close()
        return
    await nano.close()
    with tempfile.TemporaryDirectory() as made:
        engine = Embedded(write_model(Path(made), dtype="bfloat16", **LARGE), inline=True)
        await engine.start()
        await timed("16 paths, 100M", engine, known, rounds)
        await engine.close()


async def timed(label: str, engine: Embedded, known: list[Text], rounds: int) -> None:
    """All paths at once, without drafts and by each method; a first round warms up."""
    seen: list[Speeds] = []
    for turn in range(-1, rounds):
        speeds: Speeds = {}
        methods: list[DraftBy] = ["none", "sam", "ngram"]
        for method in methods[turn % 3 :] + methods[: turn % 3]:
            with forced(known) as counted:
                begun = time.process_time()
                await ask(engine, f"{label}{turn}{method}", known[0], len(known), 64, method, 0)
                speeds[method] = time.process_time() - begun, len(known) * 63 / max(1, counted[1])
        if turn >= 0:
            seen.append(speeds)
    compared(label, seen)


async def repeats(rounds: int) -> None:
    """Nano goes on, greedily and by itself, with lines that repeat."""
    nano = Embedded(bundled_model() or Path(), inline=True)
    await nano.start()
    prompt = tuple(nano.tokenize("1 + 1 = 2\n" * 4))
    seen: list[Speeds] = []
    for turn in range(-1, rounds):
        speeds: Speeds = {}
        for method in ("none", "sam") if turn % 2 else ("sam", "none"):
            sampling = Sampling(max_tokens=200, temperature=0.0, ignore_eos=True, draft=method)
            begun, right = time.process_time(), 0
            async with aclosing(nano.generate(GenerateRequest(f"{turn}{method}", prompt, 1, sampling))) as chunks:
                async for chunk in chunks:
                    right += chunk.draft_accepted
            speeds[method] = time.process_time() - begun, 200 / (200 - right)
        if turn >= 0:
            seen.append(speeds)
    compared("nano, lines that repeat", seen)
    await nano.close()


class Baseline:
    """`model.generate` on the same weights, greedily, forced to the same texts; with prompt lookup or without."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        self.torch, self.lists = torch, transformers.LogitsProcessorList
        kind = getattr(torch, dtype)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
        self.steps = 0
        self.model.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.steps += 1

    def run(self, some: list[Text], *, lookup: bool) -> tuple[float, float]:
        """Processor seconds, and tokens a step."""
        more: dict[str, Any] = {"prompt_lookup_num_tokens": 10} if lookup else {}
        self.steps, begun = 0, time.process_time()
        with self.torch.inference_mode():
            for text in some:
                prompt = self.torch.tensor([text.prompt])
                out = self.model.generate(
                    prompt, attention_mask=self.torch.ones_like(prompt), do_sample=False, pad_token_id=0,
                    max_new_tokens=len(text.said), min_new_tokens=len(text.said),
                    logits_processor=self.lists([Force(text)]), **more,
                )  # fmt: skip
                assert tuple(out[0, len(text.prompt) :].tolist()) == text.said
        spent = time.process_time() - begun
        return spent, sum(len(t.said) for t in some) / self.steps


def compared(kind: str, seen: list[Speeds]) -> None:
    """Each method's speed over none (prompt lookup's over plain `generate`), and its tokens a step."""
    row: dict[str, Any] = {}
    for method in seen[0]:
        base = "generate" if method in ("generate", "lookup") else "none"
        ratio = paired([one[base][0] / one[method][0] for one in seen])
        row[method] = [round(ratio.median, 2), round(ratio.low, 2), round(ratio.high, 2)]
        row[f"{method}, tokens a step"] = round(statistics.median(one[method][1] for one in seen), 2)
    told(kind, row)


def told(what: str, row: dict[str, Any]) -> None:
    print(json.dumps({"what": what, **row}, ensure_ascii=False), flush=True)


def options(description: str | None) -> argparse.ArgumentParser:
    """Which recorded texts, how many, how often."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="folder of public test sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=2, help="texts of each kind")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of a text")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=[], help="only these kinds of text")
    return parser


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--plain", action="store_true", help="without transformers")
    parser.add_argument("--nano", action="store_true", help="texts on the bundled model: quick")
    parser.add_argument("--parts", default="automaton,repeats,votes,large-votes,texts")
    args = parser.parse_args()
    print(machine(), file=sys.stderr)
    parts: dict[str, Callable[[], None]] = {
        "automaton": automaton,
        "texts": lambda: asyncio.run(
            texts(args.data, args.rounds, args.each, args.tokens, args.kinds, args.plain, args.nano)
        ),
        "votes": lambda: asyncio.run(votes(args.rounds, large=False)),
        "repeats": lambda: asyncio.run(repeats(args.rounds)),
        "large-votes": lambda: asyncio.run(votes(args.rounds, large=True)),
    }
    for part in args.parts.split(","):
        if part == "texts" and args.data is None:
            print("texts: left out, no --data", file=sys.stderr)
            continue
        parts[part]()


if __name__ == "__main__":
    main()
