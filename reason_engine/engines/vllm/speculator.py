"""`--draft sam` on accelerators: the drafts of vLLM's newer runner (V2), found on the device (`matches`).

vLLM is started with its n-grams on the device (`ngram_gpu`), which keep every token there and leave asynchronous
scheduling on, and with `SamWorker`, which puts our search in the place of theirs once the runner is built. The runner
wants as many drafted tokens of every row as it scheduled; a row without a match drafts its last token, as vLLM's own
n-grams do. How many are scheduled depends on the width of the batch (`drafts.BY_WIDTH`).

A row drafts from its own text and from other samples of its request that run beside it. Departure from the drafter on
the CPU: no chance of being right is kept, since a shorter draft would save nothing here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from reason_engine.engines.vllm.matches import REACH, continuations
from reason_engine.engines.vllm.release import vllm_module

SIBLINGS = 4
"""Other samples of a request that a row drafts from."""
MOST_PLACES = 2**22
"""Places that a step compares: their memory is 2 x REACH bytes each. Siblings are left out first, then the ends of the
longest texts."""


class SamDrafts:
    """Stands in for `propose` of the runner's speculator."""

    def __init__(self, states: Any, most: int) -> None:
        """`states`: the runner's requests, whose tokens are on the device; `most`: drafted tokens of a row."""
        self._states, self._most = states, most
        self._ids: list[str] = []
        self._rows_BS: Any = None

    def propose(
        self, input_batch: Any, *_: Any, dummy_run: bool = False, num_speculative_tokens: int | None = None, **__: Any
    ) -> Any:
        """(requests, most) drafted tokens. A dummy run takes the memory of the widest search, so that vLLM counts it
        when it divides the device's memory."""
        import torch

        states = self._states
        rows_B = input_batch.idx_mapping[: input_batch.num_reqs]
        last_B1 = states.last_sampled_tokens.view(-1, 1)[rows_B]
        fill_BK = last_B1.expand(-1, self._most).contiguous()
        if dummy_run:
            torch.empty(MOST_PLACES * REACH * 2, dtype=torch.uint8, device=rows_B.device)
            return fill_BK
        if num_speculative_tokens == 0:
            return fill_BK
        width = min(int(input_batch.seq_lens_cpu_upper_bound[: len(rows_B)].max()) + 1, states.max_model_len)
        rows_BS = self._sources(input_batch)
        if rows_BS.numel() * width > MOST_PLACES:
            rows_BS, width = rows_BS[:, :1], min(width, max(1, MOST_PLACES // len(rows_B)))
        drafts_BK, found_B = continuations(states.all_token_ids.gpu, states.total_len.gpu, rows_BS, width, self._most)
        return torch.where(found_B[:, None], drafts_BK, fill_BK)

    def _sources(self, input_batch: Any) -> Any:
        """The row of each request and those of its siblings; on the device, where they change only with the batch."""
        import torch

        if self._ids != input_batch.req_ids:
            rows = input_batch.idx_mapping_np[: input_batch.num_reqs].tolist()
            table = torch.tensor(sources(input_batch.req_ids, rows))
            self._rows_BS = table.to(input_batch.idx_mapping.device, non_blocking=True)
            self._ids = list(input_batch.req_ids)
        return self._rows_BS


def sources(ids: list[str], rows: list[int]) -> list[list[int]]:
    """The row of each request, then those of up to SIBLINGS other samples of the same one, -1 for none. Requests are
    called `NAME/SAMPLE`, with what vLLM adds behind."""
    families: dict[str, list[int]] = {}
    for id, row in zip(ids, rows, strict=True):
        families.setdefault(id.rpartition("/")[0], []).append(row)
    found: list[list[int]] = []
    for id, row in zip(ids, rows, strict=True):
        name = id.rpartition("/")[0]
        family = families[name] if name else [row]
        at = family.index(row)
        others = [*family[at + 1 :], *family[:at]][:SIBLINGS]
        found.append([row, *others, *[-1] * (SIBLINGS - len(others))])
    return found


def draft_by_sam(runner: Any) -> None:
    """Put our search in the place of the n-grams of a V2 runner; the stages of a pipeline that sample nothing have
    none."""
    if runner.speculator is not None:
        runner.speculator.propose = SamDrafts(runner.req_states, runner.num_speculative_steps).propose


@cache
def _worker_class() -> type:
    """VLLM's worker of this device, whose runner drafts by `sam` from its start."""
    xpu = vllm_module("platforms").current_platform.is_xpu()
    base: Any = vllm_module("v1.worker.xpu_worker").XPUWorker if xpu else vllm_module("v1.worker.gpu_worker").Worker

    class SamWorker(base):
        def init_device(self) -> None:
            super().init_device()
            if self.use_v2_model_runner:
                draft_by_sam(self.model_runner)

    return SamWorker


def __getattr__(name: str) -> Any:
    """`SamWorker`, by which vLLM names its worker: it exists only where vLLM does."""
    if name == "SamWorker":
        return _worker_class()
    raise AttributeError(name)
