"""`--draft` in vLLM's terms, and what each release and device makes of it.

On accelerators vLLM drafts while the next step is being scheduled only by methods that leave the tokens on the device,
and its newer runner (V2) knows no classes of others. So there the n-grams are `ngram_gpu` (0.33 names no difference any
more), and `sam` is our search for the longest match on the device (`speculator`), put in the place of those n-grams by
a worker class. Elsewhere `sam` is the suffix automaton (`drafter`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.vllm.release import Release
from reason_engine.errors import MissingExtra, SetupError

log = logging.getLogger("reason_engine.engines.vllm")

DRAFTER_CLASS = "reason_engine.engines.vllm.drafter.SamDrafter"
WORKER_CLASS = "reason_engine.engines.vllm.speculator.SamWorker"
_LOOKUP = {"prompt_lookup_max": 3, "prompt_lookup_min": 2}
"""The lengths that the embedded engine looks up too."""
DRAFTS: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "sam": {"method": "custom_class", "model": DRAFTER_CLASS, "num_speculative_tokens": 8},
    "ngram": {"method": "ngram", "num_speculative_tokens": 5, **_LOOKUP},
    "suffix": {"method": "suffix"},
}
"""What vLLM is told for `--draft NAME`."""
DRAFT_MODELS = {"model": "draft_model", "eagle": "eagle"}
"""vLLM's method for `--draft KIND:PATH`."""
BY_WIDTH = ((1, 4, 8), (5, 16, 4), (17, 32, 2), (33, 2**20, 0))
"""Most drafted tokens of a row in a batch of so many to so many rows; none in a wide one, whose steps are bound by
arithmetic: there each draft costs what a token costs."""
V2_SINCE, ALWAYS_ASYNC_SINCE = (0, 32), (0, 33)
"""The newer runner as we know it; asynchronous scheduling for whatever that runner drafts with."""
_NAMES = {"custom_class": "sam", "draft_model": "model", "ngram_gpu": "ngram"}


def speculation(draft: str) -> dict[str, Any] | None:
    """What vLLM is told for `--draft`. Raises SetupError for a name or path that is none, MissingExtra."""
    kind, colon, path = draft.partition(":")
    if kind in DRAFT_MODELS:
        if not (colon and path):
            raise SetupError(f"--draft {draft}: name the draft model, as in --draft {kind}:PATH")
        return {"method": DRAFT_MODELS[kind], "model": str(ModelFolder.find(path).path), "num_speculative_tokens": 4}
    if draft not in DRAFTS:
        raise SetupError(f"--draft {draft}: vLLM drafts by one of: none, sam, ngram, suffix, model:PATH, eagle:PATH")
    if draft == "suffix" and find_spec("arctic_inference") is None:
        raise MissingExtra("arctic-inference", "pip install arctic-inference==0.1.1")
    loaded = DRAFTS[draft]
    return None if loaded is None else dict(loaded)


def drafter_name(config: Mapping[str, Any] | None) -> str:
    """What a request may call the drafter that is loaded."""
    method = str((config or {}).get("method", "none"))
    return _NAMES.get(method, method)


def drafting(config: Mapping[str, Any] | None, release: Release) -> dict[str, Any]:
    """The arguments of this release for what is to draft; none where it cannot."""
    if config is None:
        return {}
    fields, method = dict(config), config.get("method")
    if release.cpu or not (method == "ngram" or config.get("model") == DRAFTER_CLASS):
        return {"speculative_config": fields}
    if method == "ngram":
        if fields == DRAFTS["ngram"] and release.number >= V2_SINCE:
            fields |= _by_width(fields)
        method = "ngram" if release.number >= ALWAYS_ASYNC_SINCE else "ngram_gpu"
        return {"speculative_config": fields | {"method": method}}
    if release.number < V2_SINCE:
        log.warning(
            "--draft sam is off: vLLM %s would leave its newer runner and asynchronous scheduling for it, which costs "
            "more than drafts give; vLLM 0.32 or later drafts by sam, --draft ngram does here too",
            release.version,
        )
        return {}
    most = {"num_speculative_tokens": fields["num_speculative_tokens"]}
    return {
        "speculative_config": {"method": "ngram_gpu", **most, **_LOOKUP, **_by_width(fields)},
        "worker_cls": WORKER_CLASS,
    }


def drafts_with(asked: Mapping[str, Any] | None, given: Mapping[str, Any], resolved: Any) -> str:
    """The drafter that a started engine has, by what it was `asked` for, was `given` and has `resolved` to; where that
    is less than was asked, it is logged."""
    name, loaded = drafter_name(asked), given.get("speculative_config")
    if loaded is None:
        return "none"
    if name != "sam" or drafter_name(loaded) == "sam":
        return name
    if resolved.use_v2_model_runner and resolved.parallel_config.worker_cls == WORKER_CLASS:
        return name
    log.warning("--draft sam drafts by n-grams here: vLLM chose its older runner, or another worker class was named")
    return "ngram"


def _by_width(fields: Mapping[str, Any]) -> dict[str, Any]:
    most = int(fields["num_speculative_tokens"])
    return {"num_speculative_tokens_per_batch_size": [(first, last, min(k, most)) for first, last, k in BY_WIDTH]}
