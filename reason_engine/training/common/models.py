"""Builds, loads and saves the model that is trained, and fits the tokenizer of a new one.

The tokenizer is a byte-level BPE. One digit (with the space before it) is one token, a newline is a token of its own,
and so is every sign; only words are merged. The ChatML template marks the assistant's text with `{% generation %}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import answer_text, prompt_text
from reason_engine.data.mixture import Stream
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training.common.config import Frozen
from reason_engine.training.common.distributed import is_sharded


class Architecture(Frozen):
    """A new Qwen3 model."""

    width: int = Field(256, ge=32, multiple_of=32)
    layers: int = Field(4, ge=1)
    intermediate: int = Field(640, ge=32, multiple_of=32)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    head_dim: int = Field(64, ge=8, multiple_of=8)
    context: int = Field(1024, ge=32)
    rope_theta: float = 1e4
    vocabulary: int = Field(768, ge=300, le=65536)
    tokenizer_examples: int = Field(20_000, ge=10)

    @model_validator(mode="after")
    def check_heads(self) -> Architecture:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


def load_or_build(config: Any, tokenizer_from: Path | None = None) -> tuple[Any, Any]:
    """The causal language model in fp32, and its tokenizer: of a new one, that of the folder `tokenizer_from` or one
    fitted to the data. Raises ModelLoadError."""
    if config.model is not None:
        return load_model(config.model)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    new = config.architecture
    if tokenizer_from is None:
        tokenizer = fit_tokenizer(islice(_texts(config), new.tokenizer_examples), new.vocabulary)
    else:
        tokenizer = load_tokenizer(tokenizer_from)
    size = -(-len(tokenizer) // 64) * 64
    config = Qwen3Config(
        vocab_size=size, hidden_size=new.width, num_hidden_layers=new.layers, intermediate_size=new.intermediate,
        num_attention_heads=new.heads, num_key_value_heads=new.kv_heads, head_dim=new.head_dim,
        max_position_embeddings=new.context, rope_parameters={"rope_type": "default", "rope_theta": new.rope_theta},
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    tokenizer.model_max_length = new.context
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data.zero_()
    return _on_device(model), tokenizer


def load_model(path: Path) -> tuple[Any, Any]:
    """A checkpoint folder in fp32, and its tokenizer. Raises ModelLoadError."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path)
    options = {"local_files_only": True, "use_safetensors": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options)
    except Exception as error:  # the boundary to transformers, whose loaders raise of every kind
        raise ModelLoadError(f"{path}: {error}") from None
    _check_logits(model, path)
    return _on_device(model), tokenizer


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint folder. Raises ModelLoadError."""
    from transformers import AutoTokenizer

    if not ModelFolder(path).is_checkpoint:
        raise ModelLoadError(f"{path}: no checkpoint folder (it has no config.json)")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the boundary to transformers, whose loaders raise of every kind
        raise ModelLoadError(f"{path}: {error}") from None


def save_model(model: Any, tokenizer: Any, out: Path, dtype: str = "bfloat16") -> None:
    """Write a checkpoint folder, whole or not at all; other files in an existing folder stay.

    Raises SetupError where the disk takes no more: what stood in the folder stays as it was.
    """
    import torch

    with ModelFolder(out).update() as fresh:
        state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
        if model.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        model.save_pretrained(fresh, state_dict=state)
        written = ModelFolder(fresh)
        written.write_json("config.json", {**written.config, "dtype": dtype})  # the library's: that of training
        tokenizer.save_pretrained(fresh)


def save_part(out: Path, about: str, settings: Mapping[str, Any], file: str, tensors: Mapping[str, Any]) -> None:
    """Write an adapter or a head: the settings into the JSON file `about`, the tensors into `file`, whole or not at
    all. Raises SetupError where the disk takes no more."""
    from safetensors.torch import save_file

    with ModelFolder(out).update(about) as fresh:
        ModelFolder(fresh).write_json(about, settings)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / file)


def _check_logits(model: Any, path: Path) -> None:
    """Losses are taken from hidden states times the output matrix; some models do more to their logits."""
    import torch

    ids_BT = torch.arange(1, 5)[None]
    with torch.no_grad():
        whole = model(input_ids=ids_BT, use_cache=False).logits
        parts = model.get_output_embeddings()(model.base_model(ids_BT, use_cache=False).last_hidden_state)
    if not torch.allclose(whole, parts, atol=1e-3, rtol=1e-3):
        kind = model.config.model_type
        raise SetupError(f"{path}: a {kind} model scales or caps its logits, which is not known here how to train")


def _on_device(model: Any) -> Any:
    """On the GPU where there is one, with the attention that is fastest there."""
    import torch

    if torch.cuda.is_available():
        model.set_attn_implementation("sdpa")
        return model if is_sharded() else model.cuda()  # parts go there by themselves
    # On short sequences plain matrix products are twice as fast as the fused kernel's backward pass on a CPU.
    model.set_attn_implementation("eager")
    return model


def _texts(config: Any) -> Iterator[str]:
    """The examples that a new tokenizer is fitted to."""
    if config.mixture:
        pairs = ((one.question, one.answer) for one in Stream(config.mixture, config.seed + 1))
    else:
        rows = read_rows(config.data, *config.kinds, format=config.format)
        pairs = ((prompt_text(row), answer_text(row)) for row in rows)
    for question, answer in pairs:
        yield f"user\n{question}\nassistant\n{answer}\nsystem"


def fit_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A transformers fast tokenizer with at most `vocabulary` tokens, learned from the texts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


END, START, PAD = "<|im_end|>", "<|im_start|>", "<|pad|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPLIT = r"\n| ?\d| ?\p{L}+| ?[^\s\d\p{L}]|\s+"
