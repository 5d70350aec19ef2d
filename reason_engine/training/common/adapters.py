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
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import gelu

from reason_engine.errors import SetupError
from reason_engine.training.common.consolidation import Factor
from reason_engine.training.common.models import load_model, save_part
from reason_engine.training.common.recipe import Peft
from reason_engine.training.kernels.packing import Body, PackedBody

if TYPE_CHECKING:
    from reason_engine.engines.embedded.front import Embedded

HOT = "policy"
"""The name of what is trained on an engine that samples from it."""


class Adapted:
    """A model with adapters; `model` is the base with its new parts in place."""

    def __init__(self, model: Any, peft: Peft, base: Path) -> None:
        self.model, self._peft, self._base = model, peft, base
        self._bottlenecks = add_bottlenecks(model, peft.width) if peft.method == "adapter" else {}
        self._wrapped: Any = None if peft.method == "adapter" else _wrap(model, peft)

    def body(self, precision: str = "fp32") -> Body:
        """How it reads; learned tokens stand before each row, and their states are cut off again."""
        if self._peft.method != "prompt":
            return PackedBody(self.model, precision)
        return PackedBody(self.model, precision, lambda: self._wrapped.get_prompt(1)[0])

    @property
    def is_hot(self) -> bool:
        """Whether the embedded engine serves it beside its base; merged otherwise."""
        return self._peft.method in ("lora", "prompt", "adapter")

    def check_served(self) -> None:
        """Raises SetupError naming a matrix that engines have no place for an adapter at."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        from reason_engine.engines.embedded.model.adapters import FUSED

        served = [part.rpartition(".")[2] for parts in FUSED.values() for part in parts]
        for name, one in self.model.named_modules():
            if isinstance(one, BaseTunerLayer) and (last := name.rpartition(".")[2]) not in served:
                raise SetupError(f"peft.targets: no engine serves an adapter of {last}, only of {', '.join(served)}")

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

    def merged(self) -> dict[str, Any]:
        """The weights with the adapter in them, by their names in the base: new tensors where it changes them."""
        if not self._peft.can_merge:
            raise SetupError(f"peft: {self._peft.method} cannot be merged into the weights")
        from peft.tuners.tuners_utils import BaseTunerLayer

        found = self.model.state_dict()
        layers = [(name, one) for name, one in self.model.named_modules() if isinstance(one, BaseTunerLayer)]
        for name, layer in layers:
            alone: Any = deepcopy(layer)
            alone.merge()
            for key in [key for key in found if key.startswith(f"{name}.")]:
                del found[key]
            found |= {f"{name}.{key}": tensor for key, tensor in alone.get_base_layer().state_dict().items()}
        return found

    def finish(self, tokenizer: Any, out: Path, write: Callable[[Any, Any, Path], None]) -> None:
        """The adapter, and the checkpoint around it. The model is not to be trained on after this."""
        self.save(out / "adapter")
        if not self._peft.can_merge:
            write(load_model(self._base)[0], tokenizer, out)
        elif self._peft.merge:
            write(self._wrapped.merge_and_unload(), tokenizer, out)


async def hand_over(engine: Embedded, model: Any, adapted: Adapted | None, scratch: Path) -> str | None:
    """Let an engine sample from the weights of the moment: the adapter's name for requests, None where they need none.

    An adapter that the engine serves beside its base is all that it is given, by way of the folder `scratch`.
    """
    if adapted is None:
        await engine.take_weights(model.state_dict())
    elif not adapted.is_hot:
        await engine.take_weights(adapted.merged())
    else:
        adapted.save(scratch)
        await engine.load_adapter(HOT, str(scratch))
        return HOT
    return None


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
