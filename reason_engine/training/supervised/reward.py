"""An outcome reward model from pairs of answers, and the heads of all reward models.

    L = −log σ(r(x, y_w) − r(x, y_l) − m)          r: the head's value at the last token

Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the margin m is Llama 2's (arXiv:2307.09288, eq. 2),
one for all pairs, 0 unless set. Departure: pairs of one prompt are not forced into one batch. `centre` adds that share
of (r_w + r_l)², which keeps values near zero (Eisenstein et al. 2023, arXiv:2312.09244) and so the verifier's sigmoid
telling. The reward is read where the verifier will read it: a model of its own at the end of the finished turn, a head
alone at the answer's last token.

A head scores: a linear layer, or two with a ReLU between, over the states after the final norm; or a side network. The
result is a whole checkpoint (`…ForSequenceClassification`, `…ForTokenClassification`, one label), its layers trained
too; or a head alone (`head.json`, `head.safetensors`) over the states of a model that stays as it is, which the
embedded engine serves beside that model: at the price of one matrix, or of a few thin layers over the answer's tokens
(`train: side`), which read what the model had expected. Both are read by the verifier `reward-model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from reason_engine.data.formats.rows import Preference, Row, Turns
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.rewards.folders import HEAD, HEAD_DIM
from reason_engine.engines.rewards.formats import RewardKind
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoded, Encoder
from reason_engine.training.common.models import save_model, save_part
from reason_engine.training.common.recipe import Tuned
from reason_engine.training.supervised.dpo import Pair
from reason_engine.training.supervised.loop import Objective, supervise

if TYPE_CHECKING:
    from reason_engine.training.common.forward import Body

ScoredText = tuple[list[int], Sequence[int], int]
"""Token ids, the places that are read, where the answer begins."""
Recipe = TypeVar("Recipe", bound="HeadRecipe")
SIDE_WIDTH = 192
CLASSES: dict[RewardKind, str] = {
    "outcome": "AutoModelForSequenceClassification",
    "process": "AutoModelForTokenClassification",
}


class HeadRecipe(Tuned):
    """`train: head` and `train: side` leave the model as it is."""

    adamw_rate: float = Field(2e-5, gt=0, description="Of a head alone 1e-3 unless set")
    train: Literal["model", "head", "side"] = "model"
    wide: int = Field(
        0, ge=0, description="Values between the two layers of a head alone (0: one layer), or a side network's width"
    )
    deep: int = Field(2, ge=1, le=16, description="Layers of a side network")
    begin: Path | None = Field(
        None, description="Folder of a head to begin with, of the same kind and size; it may have judged steps"
    )

    @model_validator(mode="before")
    @classmethod
    def default_rates(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("train") not in ("head", "side"):
            return values
        fitting = {"adamw_rate": 1e-3, **({"wide": SIDE_WIDTH} if values["train"] == "side" else {})}
        return {**fitting, **values}

    @model_validator(mode="after")
    def check_head(self) -> HeadRecipe:
        if self.wide and self.train == "model":
            raise ValueError("wide: a whole checkpoint has a head of one layer; with two, train: head")
        if self.begin is not None and self.train == "model":
            raise ValueError("begin: a whole checkpoint begins from model; a head alone, train: head or side")
        if "deep" in self.model_fields_set and self.train != "side":
            raise ValueError("deep: only a side network has layers to count; with train: side")
        if self.train == "side" and (self.wide == 0 or self.wide % HEAD_DIM):
            raise ValueError(f"wide: a side network's width is a multiple of {HEAD_DIM}")
        if self.peft is not None and (self.train != "model" or self.peft.method in ("prompt", "adapter")):
            raise ValueError("peft: a reward model takes lora, dora or ia3, merged, and only with train: model")
        if self.peft is not None and not self.peft.merge:
            raise ValueError("peft.merge: a reward model is served merged")
        return self


class HeadObjective(Objective, Generic[Recipe]):
    """What both kinds share: a head, over the states of a body."""

    kind: ClassVar[RewardKind]

    @classmethod
    def train(cls, config: Recipe, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        return supervise(config, out, tell, cls, base=config.model, save=head_saver(config, cls.kind))

    def __init__(self, config: Recipe, model: Any, tokenizer: Any) -> None:
        self.model = add_head(config, model, self.kind, tokenizer.pad_token_id)
        self._config, self._encoder = config, Encoder(tokenizer, config.max_length)
        self._lm_head = model.get_output_embeddings()


class RewardConfig(HeadRecipe):
    """Pairs of answers, the better one first."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Preference,)

    margin: float = Field(0.0, ge=0)
    centre: float = Field(0.01, ge=0)


@trainers.register("reward")
class Outcomes(HeadObjective[RewardConfig]):
    """Compares the values of two answers."""

    config: ClassVar[type[RewardConfig]] = RewardConfig
    summary: ClassVar[str] = "an outcome reward model from pairs of answers (Bradley-Terry)"

    kind = "outcome"

    def encode(self, rows: Sequence[Preference]) -> list[Pair]:
        return [Pair(self._encode(row.prompt, row.chosen), self._encode(row.prompt, row.rejected)) for row in rows]

    def total(self, batch: Sequence[Pair], body: Any) -> float:
        return len(batch)

    def loss(self, group: Sequence[Pair], body: Any) -> tuple[Any, Mapping[str, float]]:
        from torch.nn.functional import logsigmoid

        config, count = self._config, len(group)
        texts = (*(p.chosen for p in group), *(p.rejected for p in group))
        starts = [one.weights.index(1.0) if 1.0 in one.weights else len(one.ids) for one in texts]
        rows: list[ScoredText] = [(one.ids, [len(one.ids) - 1], at) for one, at in zip(texts, starts, strict=True)]
        values = head_values(config, self.model, self._lm_head, body, rows)
        better, worse = values[:count], values[count:]
        losses = -logsigmoid(better - worse - config.margin) + config.centre * (better + worse) ** 2
        margins = (better - worse).detach()
        return losses.sum(), {"accuracy": float((margins > 0).sum()), "margin": float(margins.sum())}

    def _encode(self, prompt: Turns, answer: str) -> Encoded:
        whole = self._config.train == "model"
        asked = "" if whole else self._encoder.prompt(prompt)
        text = self._encoder.closed(prompt, answer) if whole else asked + answer
        ids, starts = self._encoder.tokens(text)
        if len(ids) > self._config.max_length:
            raise SetupError(
                f"an answer with its prompt has {len(ids)} tokens, above max_length {self._config.max_length}: "
                "a reward is read at its end"
            )
        return Encoded(ids, [float(start >= len(asked)) for start in starts])


def add_head(config: HeadRecipe, model: Any, kind: RewardKind, pad: int | None) -> Any:
    """The model's body under a new head `score`; of a head alone the body is frozen."""
    import torch
    import transformers
    from torch import nn

    settings = deepcopy(model.config)
    settings.num_labels, settings.pad_token_id = 1, pad
    if kind == "process":
        settings.classifier_dropout = 0.0
    try:
        with torch.device("meta"):
            made = getattr(transformers, CLASSES[kind]).from_config(settings)
        made.model = model.model
    except (ValueError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise SetupError(f"{config.model}: no {kind} reward model can be made of it: {why}") from None
    hidden, wide = model.config.hidden_size, config.wide
    score: Any
    if config.train == "side":
        from reason_engine.engines.embedded.model.side_network import SideNetwork

        score = SideNetwork(hidden, wide, config.deep)
    elif wide:
        score = nn.Sequential(nn.Linear(hidden, wide), nn.ReLU(), nn.Linear(wide, 1))
    else:
        score = nn.Linear(hidden, 1, bias=kind == "process" or config.train == "head")
    if config.begin is not None:
        _load_head(score, config.begin)
    made.score = score.to(next(model.parameters()).device)
    if config.train == "model":
        nn.init.normal_(made.score.weight, std=hidden**-0.5)
    else:
        made.model.requires_grad_(False)
    return made


def _load_head(score: Any, folder: Path) -> None:
    """The weights of the head in that folder. Raises SetupError where it has none, or others."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(folder / "head.safetensors")
        score.load_state_dict({name.removeprefix("score."): tensor.float() for name, tensor in found.items()})
    except (OSError, SafetensorError) as error:
        raise SetupError(f"begin: {folder}: no head can be read: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise SetupError(f"begin: {folder}: another head than this one: {last}") from None


def head_values(config: HeadRecipe, made: Any, lm_head: Any, body: Body, rows: Sequence[ScoredText]) -> Any:
    """The values at each row's places, one after the other, [N]. `lm_head`: the model's output matrix."""
    from reason_engine.training.common.forward import place_values

    if config.train == "side":
        return _side_values(made, lm_head, body, rows, config.precision)
    return place_values(body, made.score, [(ids, places) for ids, places, _ in rows], config.precision)


def _side_values(made: Any, lm_head: Any, body: Body, rows: Sequence[ScoredText], precision: str) -> Any:
    """By the network beside the model, which begins at the token before the answer."""
    import torch

    from reason_engine.engines.embedded.model.side_network import surprise
    from reason_engine.training.kernels.logprobs import head_logits
    from reason_engine.training.kernels.packing import pad_ids

    device = next(made.score.parameters()).device
    ids_BT = pad_ids([ids for ids, _, _ in rows])[0].to(device)
    begins = torch.tensor([max(0, first - 1) for _, _, first in rows], device=device)
    length = int(max(len(ids) for ids, _, _ in rows) - begins.min())
    window_BT = (begins[:, None] + torch.arange(length, device=device)).clamp(max=ids_BT.shape[1] - 1)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        states_BTH = body(ids_BT).gather(1, window_BT[..., None].expand(-1, -1, made.config.hidden_size))
        answer_BT = ids_BT.gather(1, window_BT)
        tokens_BTH = made.get_input_embeddings()(answer_BT)
        surprise_BT3 = surprise(head_logits(lm_head, states_BTH, precision), answer_BT)
    values_BT = made.score(states_BTH.float(), tokens_BTH.float(), surprise_BT3)
    at = [(row, place - max(0, first - 1)) for row, (_, places, first) in enumerate(rows) for place in places]
    rows_N, places_N = (torch.tensor(column, device=device) for column in zip(*at, strict=True))
    return values_BT[rows_N, places_N]


def head_saver(config: HeadRecipe, kind: RewardKind) -> Any:
    """What writes the result: the checkpoint, or the head alone."""
    if config.train == "model":
        return save_model

    def save(model: Any, tokenizer: Any, out: Path) -> None:
        import torch

        del tokenizer
        kept = torch.bfloat16 if config.train == "side" else torch.float32
        tensors = {f"score.{name}": tensor.to(kept) for name, tensor in model.score.state_dict().items()}
        settings: dict[str, Any] = {"kind": kind, "base": ModelFolder(config.model).fingerprint}
        if config.train == "side":
            settings["side"] = {"width": config.wide, "depth": config.deep}
        save_part(out, HEAD, settings, "head.safetensors", tensors)

    return save
