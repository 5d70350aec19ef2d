"""`peft: lora | dora | ia3 | prompt | adapter`: a few new parameters beside frozen weights.

lora     Hu et al. 2021, arXiv:2106.09685       dora    Liu et al. 2024, arXiv:2402.09353
ia3      Liu et al. 2022, arXiv:2205.05638      prompt  Lester et al. 2021, arXiv:2104.08691

These four are the PEFT library's (extra `train`). `adapter` is a bottleneck: two small layers after each attention and
each MLP, the identity before they learn.

    h ← h + W_up gelu(W_down h)          h the sublayer's output, before it is added to the residual stream

Houlsby et al. 2019, arXiv:1902.00751, section 2.1. Departures: the norms of the model stay frozen, W_up starts at zero
where the paper starts near it. Not linear, so it cannot be merged into the weights.

What is written: `adapter/`, and around it the merged checkpoint, or that of the base where a method cannot be merged.
The folder of a bottleneck adapter: `adapter_config.json` with `peft_type: BOTTLENECK` and `width`, and
`adapter_model.safetensors` with `layers.{i}.{attention|mlp}.{down|up}.{weight|bias}`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from reason_engine.errors import SetupError
from reason_engine.training.common.consolidation import Factor
from reason_engine.training.common.forward import body_of
from reason_engine.training.common.models import load_model, save_part
from reason_engine.training.common.recipe import Peft


class Adapted:
    """A model with adapters; `model` is the base with its new parts in place."""

    def __init__(self, model: Any, peft: Peft, base: Path) -> None:
        self.model, self._peft, self._base = model, peft, base
        self._bottlenecks = add_bottlenecks(model, peft.width) if peft.method == "adapter" else {}
        self._wrapped: Any = None if peft.method == "adapter" else _wrap(model, peft)

    def body(self) -> Any:
        """Token ids [B, T] to hidden states [B, T, D]; learned tokens stand before them and are cut off again."""
        if self._peft.method != "prompt":
            return body_of(self.model, False)

        def run(ids_BT: Any) -> Any:
            learned_BPD, embedded = self._wrapped.get_prompt(len(ids_BT)), self.model.get_input_embeddings()(ids_BT)
            both = torch.cat((learned_BPD.to(embedded.dtype), embedded), 1)
            hidden = self.model.base_model(inputs_embeds=both, use_cache=False).last_hidden_state
            return hidden[:, learned_BPD.shape[1] :]

        return run

    @property
    def module(self) -> Any:
        """What holds all parameters by name, the new ones too."""
        return self.model if self._wrapped is None else self._wrapped

    def factors(self) -> list[Factor]:
        """The inner factors of lora and dora."""
        if self._peft.method not in ("lora", "dora"):
            return []
        from peft.tuners.lora import Linear

        layers = [layer for layer in self._wrapped.modules() if isinstance(layer, Linear)]
        return [
            Factor(layer.lora_A["default"].weight, layer.base_layer.weight, layer.scaling["default"])  # type: ignore[arg-type]
            for layer in layers
        ]

    def save(self, out: Path) -> None:
        """The adapter alone."""
        if self._wrapped is None:
            parts = self._bottlenecks.items()
            tensors = {f"{at}.{name}": tensor for at, one in parts for name, tensor in one.state_dict().items()}
            about = {"peft_type": "BOTTLENECK", "width": self._peft.width, "base_model_name_or_path": str(self._base)}
            save_part(out, "adapter_config.json", about, "adapter_model.safetensors", tensors)
            return
        self._wrapped.peft_config["default"].base_model_name_or_path = str(self._base)
        self._wrapped.save_pretrained(out, safe_serialization=True)
        (out / "README.md").unlink(missing_ok=True)  # a template with nothing in it

    def finish(self, tokenizer: Any, out: Path, write: Callable[[Any, Any, Path], None]) -> None:
        """The adapter, and the checkpoint around it. The model is not to be trained on after this."""
        self.save(out / "adapter")
        if not self._peft.can_merge:
            write(load_model(self._base)[0], tokenizer, out)
        elif self._peft.merge:
            write(self._wrapped.merge_and_unload(), tokenizer, out)


class Bottleneck(nn.Module):
    """`down` and `up` of one place."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)
        nn.init.normal_(self.down.weight, std=hidden**-0.5)
        for still in (self.down.bias, *self.up.parameters()):
            nn.init.zeros_(still)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD + self.up(gelu(self.down(hidden_BTD)))

    def after(self, _sublayer: nn.Module, _inputs: Any, output: Any) -> Any:
        """The sublayer's forward hook."""
        return (self(output[0]), *output[1:]) if isinstance(output, tuple) else self(output)


def add_bottlenecks(model: Any, width: int) -> dict[str, Bottleneck]:
    """Freeze the model and hang one adapter behind each sublayer; they become modules of the model."""
    model.requires_grad_(False)
    found, device = dict[str, Bottleneck](), next(model.parameters()).device
    for number, layer in enumerate(model.model.layers):
        for name, part in (("attention", layer.self_attn), ("mlp", layer.mlp)):
            found[f"layers.{number}.{name}"] = made = Bottleneck(model.config.hidden_size, width).to(device)
            layer.add_module(f"{name}_bottleneck", made)
            part.register_forward_hook(made.after)
    return found


def load_bottlenecks(model: Any, folder: Path, width: int) -> None:
    """Hang a written adapter onto its base."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    for at, one in add_bottlenecks(model, width).items():
        one.load_state_dict({name: tensors[f"{at}.{name}"] for name in one.state_dict()})


def _wrap(model: Any, peft: Peft) -> Any:
    import peft as library

    linear = {name.rpartition(".")[2] for name, m in model.base_model.named_modules() if isinstance(m, nn.Linear)}
    scored = ["score"] if "score" in dict(model.named_children()) else None
    if peft.method in ("lora", "dora"):
        config = library.LoraConfig(
            r=peft.rank, lora_alpha=peft.alpha or 2 * peft.rank, lora_dropout=peft.dropout, modules_to_save=scored,
            target_modules=list(peft.targets) or sorted(linear), use_dora=peft.method == "dora",
        )  # fmt: skip
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
