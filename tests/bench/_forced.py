"""Recorded texts forced as what a model says: speed is then that of real text, whatever the weights are.

The embedded engine draws by one number a place, from `sampler.rng_uniforms`; here that number names the recorded token,
and the draw, after all its work, returns it. `model.generate` is given a logits processor that leaves one token.
"""

from __future__ import annotations

import gzip
import json
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from reason_engine.engines.embedded.batch import Batch
from reason_engine.engines.embedded.sampling import sampler
from reason_engine.engines.embedded.sampling.sampler import Sampler

SCALE = 2.0**20
VOCAB = 16_000


@dataclass(frozen=True)
class Text:
    """A prompt and what is said to it, as tokens."""

    prompt: tuple[int, ...]
    said: tuple[int, ...]


def tokenizer(data: Path, folder: Path) -> Tokenizer:
    """A byte-level BPE made of the standard library's source and of GSM8K's training split; written to the folder."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:120]
    lines = (data / "gsm8k" / "train.jsonl").read_text().splitlines()[:5000]
    texts = [path.read_text("utf-8", "replace") for path in sources]
    texts += [f"{row['question']}\n{row['answer']}" for row in map(json.loads, lines)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.save(str(folder / "tokenizer.json"))
    return made


def recorded(data: Path, made: Tokenizer, each: int, most: int) -> dict[str, list[Text]]:
    """By kind, prompts of the public test sets with their reference answers, cut to `most` tokens."""

    def text(prompt: str, said: str) -> Text:
        return Text(tuple(made.encode(prompt).ids[:700]), tuple(made.encode(said).ids[:most]))

    rows = [json.loads(line) for line in (data / "spec-bench" / "question.jsonl").read_text().splitlines()]
    found: dict[str, list[Text]] = {}
    for row in rows:
        kept = found.setdefault(row["category"], [])
        said = row.get("reference", [None])[0]
        said = "; ".join(said) if isinstance(said, list) else said
        if said and len(kept) < each and len(made.encode(said).ids) >= 24:
            kept.append(text(row["turns"][0] + "\n", said))
    code = gzip.decompress((data / "humaneval" / "HumanEval.jsonl.gz").read_bytes()).decode().splitlines()
    for row in map(json.loads, code[:: len(code) // each][:each]):
        found.setdefault("code: the body", []).append(text(row["prompt"], row["canonical_solution"]))
        whole = row["prompt"] + row["canonical_solution"]
        found.setdefault("code: the whole function", []).append(
            text(f"Complete this function.\n{row['prompt']}\n", whole)
        )
    return {kind: texts for kind, texts in found.items() if texts}


@contextmanager
def forced(texts: Sequence[Text]) -> Iterator[list[int]]:
    """The sample with seed i says `texts[i]`. Yields [steps, tokens that went through the model in them]."""
    width = max(len(one.said) for one in texts) + 64
    table = np.zeros((len(texts), width))
    starts = np.array([len(one.prompt) for one in texts])
    for row, one in enumerate(texts):
        table[row, : len(one.said)] = np.array(one.said) / SCALE
    index = {int(stream): i for i, stream in enumerate(sampler.rng_streams(list(range(len(texts)))))}
    counted = [0, 0]

    def uniforms(streams: Any, places: Any) -> Any:
        rows = np.array([index[int(stream)] for stream in streams])
        at = np.minimum(places.astype(np.int64) - starts[rows], width - 1)
        return table[np.broadcast_to(rows, at.shape), at]

    def pick(self: Any, logits: torch.Tensor) -> torch.Tensor:
        number = next(self._uniforms)
        sums = (logits * self.inverse_B1).softmax(-1).cumsum(-1, dtype=self.precise)
        torch.searchsorted(sums, number * sums[:, -1:], right=True)
        return (number * SCALE).round().long().squeeze(1)

    def counting(inner: Any) -> Any:
        def step(self: Any, *given: Any) -> Any:
            counted[0] += 1
            counted[1] += len(self.samples)
            return inner(self, *given)

        return step

    before = sampler.rng_uniforms, Sampler._pick, Batch.step, Batch.check
    sampler.rng_uniforms, Sampler._pick = uniforms, pick
    Batch.step, Batch.check = counting(Batch.step), counting(Batch.check)
    try:
        yield counted
    finally:
        sampler.rng_uniforms, Sampler._pick, Batch.step, Batch.check = before


class Force:
    """A logits processor of transformers that leaves the recorded token alone."""

    def __init__(self, text: Text) -> None:
        self.text = text

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        at = min(input_ids.shape[1] - len(self.text.prompt), len(self.text.said) - 1)
        left = torch.full_like(scores, float("-inf"))
        left[:, self.text.said[at]] = 0.0
        return left
