"""How much memory a run takes, before torch is loaded, and how many tokens a pass may hold.

    bytes = fixed + tokens of a pass × per token

Fixed: weights, frozen copies, gradients and two moments of what is trained, a chunk of logits, the libraries; of online
methods the engine's own weights, the keys and values of a step's samples, the judge. Per token: what a layer keeps for
the way back, counted from the shapes of Llama's and Qwen's layers as this package runs them (`kernels`): three values
of the inner width, two of the queries, four of the keys and values, six of the hidden size (eight where norms are
trained). With `checkpointing` a layer keeps its input alone, and one layer at a time is worked out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.training.common.distributed import process_count

if TYPE_CHECKING:
    from reason_engine.training.common.models import Architecture
    from reason_engine.training.common.recipe import Recipe, Supervised
    from reason_engine.training.online.recipe import Online

LIBRARIES = 600 * 2**20
"""Of Python with torch and transformers."""
CHUNK = 3 * 4 * 2**24
"""Of the logits that exist at a time, with what is made of them."""
SPARE = 1.1
"""Of what is kept for the way back: what the allocator holds besides."""
SHARE = 0.7
"""Of the free memory that `micro_tokens: auto` lets a run take."""
LEAST, MOST, MOST_ON_GPU = 256, 2048, 65536
"""Tokens of a pass that `auto` chooses among. On a CPU larger passes are not faster."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """`cache`: numbers that a token leaves behind, the keys and values of all layers."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    cache: int = 0
    inner: int = 0
    queries: int = 0
    tied: bool = True

    def low_rank(self, rank: int) -> int:
        """Parameters of a low-rank part of every matrix of a layer."""
        keys = self.cache // (2 * self.layers)
        sides = (self.hidden + self.queries) * 2 + (self.hidden + keys) * 2 + (self.hidden + self.inner) * 3
        return rank * self.layers * sides

    def kept_bytes(self, *, whole: bool, checkpointing: bool, half: bool) -> float:
        """Bytes that a token of a pass keeps for the way back."""
        keys = self.cache // (2 * self.layers)
        layer = 3 * self.inner + 2 * self.queries + 4 * keys + (8 if whole else 6) * self.hidden
        count = self.layers * self.hidden + 2 * layer if checkpointing else self.layers * layer
        return SPARE * (2.6 if half else 4) * (count + 4 * self.hidden)


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of a run."""

    fixed: float
    token: float

    def total(self, tokens: int) -> float:
        return self.fixed + tokens * self.token

    def tokens(self, free: float, *, on_gpu: bool = False) -> int:
        """The tokens of a pass that fit into so many free bytes: a power of two, never fewer than LEAST."""
        most, fitting = (MOST_ON_GPU if on_gpu else MOST), (SHARE * free - self.fixed) / self.token
        found = LEAST
        while 2 * found <= min(most, fitting):
            found *= 2
        return found


def supervised_need(config: Supervised, size: ModelSize, copies: int) -> Need:
    """`copies`: frozen models beside the trained one."""
    trained = trained_parameters(config, size)
    state = 4 * (size.parameters * (1 + copies) + trained * (3 + 2 * (config.ewc > 0)))
    return Need(LIBRARIES + CHUNK + state, _token(config, size))


def online_need(config: Online, size: ModelSize, judge: ModelSize | None) -> Need:
    """Of a method that samples from its model. Of whole weights that go to the engine two more copies stand while
    nothing else does; they fit into what a pass took."""
    trained, head = trained_parameters(config, size), size.vocabulary * size.hidden
    engine = size.parameters + head * size.tied
    frozen = 0 if config.peft is not None else size.parameters * (1 if config.has_reference else 0)
    critic = 0 if config.peft is not None or config.trained == 1 else size.parameters
    state = 4 * (size.parameters + engine + frozen + critic + 3 * trained * config.trained)
    samples = 4 * config.prompts * config.samples * config.max_tokens * size.cache
    judging = 0 if judge is None else 4 * judge.parameters
    return Need(LIBRARIES + CHUNK + state + samples + judging, _token(config, size) * config.trained)


def trained_parameters(config: Recipe, size: ModelSize) -> int:
    """About: of `freeze` nothing is known yet."""
    if config.peft is None:
        return size.parameters
    rank = config.peft.rank if config.peft.method in ("lora", "dora") else 1
    return min(size.parameters, size.low_rank(rank) or size.parameters // 50)


def _token(config: Recipe, size: ModelSize) -> float:
    half = config.precision == "bf16"
    return size.kept_bytes(whole=config.peft is None, checkpointing=config.checkpointing, half=half)


def model_size(model: Path) -> ModelSize:
    """Of a checkpoint folder, by its configuration and its files' headers. Raises ModelLoadError."""
    folder = ModelFolder(model)
    config = folder.config
    hidden, layers = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    heads = config.get("num_attention_heads") or 1
    head_dim = config.get("head_dim") or hidden // heads
    cache = 2 * layers * (config.get("num_key_value_heads") or heads) * head_dim
    return ModelSize(
        folder.parameters, hidden, layers, config.get("vocab_size", 0), cache,
        config.get("intermediate_size") or 4 * hidden, heads * head_dim, bool(config.get("tie_word_embeddings", True)),
    )  # fmt: skip


def new_size(new: Architecture) -> ModelSize:
    """Of a model that is still to be made."""
    per_width = new.heads * new.head_dim * 2 + new.kv_heads * new.head_dim * 2 + 3 * new.intermediate
    count = new.vocabulary * new.width + new.layers * new.width * per_width
    cache = 2 * new.layers * new.kv_heads * new.head_dim
    return ModelSize(count, new.width, new.layers, new.vocabulary, cache, new.intermediate, new.heads * new.head_dim)


def available() -> tuple[int, str]:
    """Bytes that are free, and where."""
    import psutil

    return psutil.virtual_memory().available, "on this machine"


def fit(config: Recipe, need: Need) -> int:
    """The tokens of a pass: as given, or as many as fit. What a run has begun with it goes on with, so that it ends as
    if unbroken; torch is loaded."""
    if config.micro_tokens != "auto" or process_count() > 1:
        return config.pass_tokens
    kept = _kept(config)
    if kept.is_file():
        return int(kept.read_text("utf-8"))
    import torch

    on_gpu = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if on_gpu else available()[0]
    return need.tokens(free, on_gpu=on_gpu)


def keep_fit(given: Recipe, tokens: int) -> None:
    """Keep what `fit` found for the next part of a run, once nothing speaks against the run any more."""
    kept = _kept(given)
    if given.micro_tokens == "auto" and process_count() == 1 and not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{tokens}\n", "utf-8")


def _kept(config: Recipe) -> Path:
    return config.out / "checkpoint" / "micro_tokens"
