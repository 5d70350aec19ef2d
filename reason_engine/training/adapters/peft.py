"""`peft: lora | dora | ia3 | prompt | adapter`: a few new parameters beside frozen weights.

lora     Hu et al. 2021, arXiv:2106.09685       dora    Liu et al. 2024, arXiv:2402.09353
ia3      Liu et al. 2022, arXiv:2205.05638      prompt  Lester et al. 2021, arXiv:2104.08691
adapter  Houlsby et al. 2019, see `_bottleneck`

The first four are the PEFT library's (extra `train`). What is written: `adapter/`, and around it the merged checkpoint,
or that of the base where a method cannot be merged.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reason_engine.errors import MissingExtra, SetupError
from reason_engine.training.common.models import load_model
from reason_engine.training.supervised.recipe import Peft

EXTRA = "pip install 'reason-engine[train]'"
MERGED = ("lora", "dora", "ia3")


def check_installed(peft: Peft | None) -> None:
    """Raises MissingExtra where the method is PEFT's and PEFT is not there."""
    if peft is not None and peft.method != "adapter" and find_spec("peft") is None:
        raise MissingExtra(f"peft, which `peft: {peft.method}` needs,", EXTRA)


class Adapted:
    """A model with adapters; `model` is the base with its new parts in place."""

    def __init__(self, model: Any, peft: Peft, base: Path) -> None:
        self.model, self._peft, self._base = model, peft, base
        self._bottlenecks: dict[str, Any] = {}
        self._wrapped: Any = None
        if peft.method == "adapter":
            from reason_engine.training.adapters.bottleneck import add_bottlenecks

            self._bottlenecks = add_bottlenecks(model, peft.width)
        else:
            self._wrapped = _wrap(model, peft)

    def body(self) -> Any:
        """Token ids [B, T] to hidden states [B, T, D]; learned tokens stand before them and are cut off again."""
        import torch

        if self._peft.method != "prompt":
            return lambda ids_BT: self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state

        def run(ids_BT: Any) -> Any:
            learned_BPD = self._wrapped.get_prompt(batch_size=len(ids_BT))
            embedded = self.model.get_input_embeddings()(ids_BT)
            both = torch.cat((learned_BPD.to(embedded.dtype), embedded), 1)
            hidden = self.model.base_model(inputs_embeds=both, use_cache=False).last_hidden_state
            return hidden[:, learned_BPD.shape[1] :]

        return run

    @property
    def parameters_of(self) -> Any:
        """The module that names all parameters, the new ones too."""
        return self.model if self._wrapped is None else self._wrapped

    def save(self, out: Path) -> None:
        """The adapter alone."""
        if self._wrapped is None:
            from reason_engine.training.adapters.bottleneck import save_bottlenecks

            save_bottlenecks(self._bottlenecks, self._base, self._peft.width, out)
            return
        self._wrapped.peft_config["default"].base_model_name_or_path = str(self._base)
        self._wrapped.save_pretrained(out, safe_serialization=True)
        (out / "README.md").unlink(missing_ok=True)  # a template with nothing in it

    def finish(self, tokenizer: Any, out: Path, write: Callable[[Any, Any, Path], None]) -> None:
        """The adapter, and the checkpoint around it. The model is not to be trained on after this."""
        self.save(out / "adapter")
        if self._peft.method in MERGED:
            if self._peft.merge:
                write(self._wrapped.merge_and_unload(), tokenizer, out)
            return
        write(load_model(self._base)[0], tokenizer, out)


def _wrap(model: Any, peft: Peft) -> Any:
    import peft as library
    from torch import nn

    linear = {
        name.rpartition(".")[2] for name, m in model.base_model.named_modules() if isinstance(m, nn.Linear)
    }
    targets = list(peft.targets) or sorted(linear)
    scored = ["score"] if "score" in dict(model.named_children()) else None
    if peft.method in ("lora", "dora"):
        config = library.LoraConfig(
            r=peft.rank,
            lora_alpha=peft.alpha or 2 * peft.rank,
            lora_dropout=peft.dropout,
            target_modules=targets,
            modules_to_save=scored,
            use_dora=peft.method == "dora",
        )
    elif peft.method == "ia3":
        chosen = list(peft.targets) or ["k_proj", "v_proj", "down_proj"]
        forward = [name for name in chosen if name == "down_proj"]
        config = library.IA3Config(target_modules=chosen, feedforward_modules=forward, modules_to_save=scored)
    else:
        config = library.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=peft.length)
    try:
        return library.get_peft_model(model, config)
    except ValueError as error:  # no matrix of the model has such a name
        raise SetupError(f"peft: {str(error).splitlines()[0]}") from None
