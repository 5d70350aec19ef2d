"""The one bound on keys and values: of what runs, of what is being read, and of what the prefix cache keeps.

What the prefix cache keeps and nobody holds goes first. When that is not enough the youngest sample is set back, as in
vLLM (Kwon et al. 2023, arXiv:2309.06180, section 4.5, recomputation); one sample alone always goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch

from reason_engine.engines.embedded.batch import Batch
from reason_engine.engines.embedded.cells.rows import capacity
from reason_engine.engines.embedded.cells.shared import shared_length
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.sample import Sample

KEPT_BYTES = 2**28
"""Room that no row uses above which it is given back."""

LIGHT, LIGHT_CELLS = 20_000_000, 4096
"""Parameters below which calls cost more than cells, and how many a request's samples must then have in common to share
them. Larger models share every prompt: a sample is then rounded alike alone and among others."""


class Memory:
    """What may run within `limit` bytes. `reading`: the samples of the prompts that are being read, each with the
    prompt's length; those of a choice are none."""

    def __init__(
        self, batch: Batch, shape: Shape, limit: int, reading: Callable[[], Iterable[tuple[Sequence[Sample], int]]]
    ) -> None:
        self.batch, self.limit = batch, limit
        self._reading = reading
        self._fewest = LIGHT_CELLS if 12 * shape.layers * shape.hidden**2 < LIGHT else 0

    def shared(self, sample: Sample) -> int:
        """How many of its first cells are shared. This depends on its own request alone, and so does its text."""
        length = shared_length(sample.prompt)
        return length if sample.request.n * length >= self._fewest else 0

    def fitting(self, group: Sequence[Sample], most: int) -> int:
        """How many samples of a group may begin beside what runs: up to `most`, and halves of that."""
        while most > 0 and self.needed(1, [(group[:most], len(group[0].ids))]) > self.limit:
            most //= 2
        return max(0, most)

    def make_room(self, more: int, wanted: int, set_back: Callable[[Sample], None]) -> bool:
        """Let every sample go on by `wanted` tokens if they fit, which is returned, else by `more` of them; samples
        are set back until that fits."""
        batch = self.batch
        if not batch.needs_room(wanted):
            return True
        fits = self.needed(wanted) <= self.limit
        more = wanted if fits else more
        while len(batch.samples) > 1 and self.needed(more) > self.limit:
            sample = max(batch.samples, key=lambda one: (one.request.priority, one.number))
            batch.save(sample)
            batch.leave(sample)
            set_back(sample)
        self.give_way(more)
        batch.make_room(more)
        self.give_way(more)
        return fits

    def give_way(self, more: int = 1) -> None:
        """Let the store and the prefix cache keep no more than what is left of the bound."""
        needed, store = self.needed(more), self.batch.store
        unused = max(0, store.nbytes - store.bytes_for(store.counts(more)))
        if unused > KEPT_BYTES or needed + unused > self.limit:
            self.batch.trim()
            unused = 0
        self.batch.prefixes.shrink(self.limit - needed - unused)

    def rest(self) -> None:
        """Nothing runs."""
        if self.batch.store.nbytes > KEPT_BYTES:
            self.batch.trim()

    def needed(self, more: int, joining: Iterable[tuple[Sequence[Sample], int]] = ()) -> int:
        """Bytes of what runs, each sample going on by so many tokens, of what is being read, and of others like it."""
        counts, read = Counter[int](), 0
        for samples, length in (*self._reading(), *joining):
            read += length
            if samples:
                counts[capacity(length - self.shared(samples[0]) + 1)] += len(samples)
        return self.batch.bytes_needed(more, counts) + read * self.batch.store.cell_bytes


def default_limit(device: torch.device) -> int:
    """A share of the device's memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.6)
    return min(2**32, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
