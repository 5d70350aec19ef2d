"""Texts read by reward models and as vectors, in the worker: one pass of a decoder, then a head over its states.

    linear   r(t) = W_k relu(... relu(W_1 h_t + b_1)) + b_k        h_t the normalised state after the last layer
    tokens   r(t) = (w_good − w_bad) h_t                           two columns of a language model's own output matrix
    side     a side network, which reads all of an answer's tokens (`side_network`)
    mean     e = m / |m|,  m = 1/T sum_t h_t                       the served model's own embedding of a text

The decoder is the served one, whose cached prefixes are then used again, or one of the head's own checkpoint. With two
labels or tokens the value is the log-odds of the second. A step is one pass over the texts that fit `limit` tokens, so
that a long batch does not hold up what is being generated for longer than a prompt would.

`mean` is pooling as in Sentence-BERT (Reimers and Gurevych 2019, section 3, MEAN), without the training for it that
follows there: any decoder gives these vectors, but states of causal attention know only what stands before them. A
model that was trained to embed does better; it is served by an endpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.cells.prefixes import PrefixCache
from reason_engine.engines.embedded.messages import OutputBuffer, ScoreTexts
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.model.side_network import SideNetwork, surprise
from reason_engine.engines.embedded.model.stored import WRAPPED
from reason_engine.engines.embedded.model.weights import load_weights
from reason_engine.engines.embedded.prefill import Segment, advance, new_segment
from reason_engine.engines.rewards.folders import RewardFile
from reason_engine.errors import ModelLoadError
from reason_engine.types import Scores

NAMES = ("score.", "classifier.", "v_head.")
NOTHING = -12.0
"""Value of an empty answer by a side network, which judges tokens."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Linear layers in order, each (weight, bias or None), over a decoder. `own`: over the served model."""

    decoder: Decoder
    layers: tuple[tuple[Tensor, Tensor | None], ...]
    own: bool

    def kept_from(self, places: Sequence[int], begin: int) -> int:
        """The first place whose state is needed."""
        return min(places)

    def read(self, hidden_NH: Tensor, ids: Sequence[int], places: Sequence[int], begin: int) -> tuple[float, ...]:
        """The values at those places; the states are those of the last tokens of the text."""
        values, start = self.values(hidden_NH), len(ids) - len(hidden_NH)
        return tuple(float(values[place - start]) for place in places)

    def values(self, hidden_NH: Tensor) -> Tensor:
        """One value a state, (N)."""
        x = self.decoder.states(hidden_NH).float()
        for number, (weight, bias) in enumerate(self.layers):
            x = F.linear(F.relu(x) if number else x, weight, bias)
        return x[:, 0] if x.shape[1] == 1 else x[:, 1] - x[:, 0]


@dataclass(frozen=True, slots=True)
class SideHead:
    """A side network beside the served model, from the token before the answer on."""

    decoder: Decoder
    network: SideNetwork
    own: ClassVar[bool] = True

    def kept_from(self, places: Sequence[int], begin: int) -> int:
        """The first place whose state is needed."""
        return max(0, min(begin - 1, *places))

    def read(self, hidden_NH: Tensor, ids: Sequence[int], places: Sequence[int], begin: int) -> tuple[float, ...]:
        """The values at those places; the states are those of the last tokens of the text. Without an answer there is
        nothing that is right."""
        start = max(0, begin - 1)
        hidden_NH = hidden_NH[start - len(ids) :]
        ids_T = torch.tensor(ids[start:], device=hidden_NH.device)
        tokens_TH = self.decoder.weights.embedding.index_select(0, ids_T)
        surprise_1T3 = surprise(self.decoder.logits(hidden_NH)[None], ids_T[None])
        states_TH = self.decoder.states(hidden_NH)
        values_1T = self.network(states_TH[None].float(), tokens_TH[None].float(), surprise_1T3)
        return tuple(float(values_1T[0, place - start]) if place >= begin else NOTHING for place in places)


@dataclass(frozen=True, slots=True)
class MeanPooling:
    """Reads a text whole: states that are in the prefix cache as keys and values only are computed again."""

    decoder: Decoder
    own: ClassVar[bool] = False

    def kept_from(self, places: Sequence[int], begin: int) -> int:
        """A text is read from its beginning."""
        return 0

    def read(self, hidden_NH: Tensor, ids: Sequence[int], places: Sequence[int], begin: int) -> tuple[float, ...]:
        """The text's vector, (H); the places do not matter."""
        mean = self.decoder.states(hidden_NH).float().mean(0)
        return tuple(F.normalize(mean, dim=0).tolist())


Head = LinearHead | SideHead | MeanPooling


@dataclass(slots=True)
class _Pending:
    """A request on its way; `values[i]` is None until input i was read."""

    request: ScoreTexts
    values: list[tuple[float, ...] | None]


class TextScorer:
    """Reads texts by heads, by the name None as vectors; first come first served, while any are `pending`."""

    def __init__(
        self, heads: Mapping[str | None, Head], prefixes: PrefixCache, output: OutputBuffer, limit: int
    ) -> None:
        self.heads, self.prefixes, self.output, self.limit = heads, prefixes, output, limit
        self.pending: deque[_Pending] = deque()

    def add(self, request: ScoreTexts) -> None:
        """Queue a request."""
        if not request.inputs:
            return self.output.add_result(request.id, Scores(()))
        self.pending.append(_Pending(request, [None] * len(request.inputs)))

    def abort(self, request_id: str) -> None:
        """Forget a request that nobody waits for."""
        self.pending = deque(one for one in self.pending if one.request.id != request_id)

    def step(self) -> None:
        """One pass."""
        request, values = self.pending[0].request, self.pending[0].values
        head = self.heads[request.model]
        first, segments = values.index(None), list[Segment]()
        for number, ids in enumerate(request.inputs[first:], first):
            places = request.places[number] or (len(ids) - 1,)
            one = self._segment(head, ids, len(ids) - head.kept_from(places, request.begins[number]))
            if segments and sum(s.left for s in segments) + one.left > self.limit:
                break
            segments.append(one)
        done = dict(advance(head.decoder, segments, sum(s.left for s in segments), None))
        for number, one in enumerate(segments, first):
            values[number] = head.read(done[one], one.ids, request.places[number], request.begins[number])
        if None not in values:
            self.pending.popleft()
            read = sum(map(len, request.inputs))
            self.output.add_result(request.id, Scores(tuple(v for v in values if v is not None), read))

    def _segment(self, head: Head, ids: Sequence[int], keep: int) -> Segment:
        known, shared = self.prefixes.find(0, ids) if head.own else ([], 0)
        return new_segment(head.decoder, ids, known, shared, keep=keep)


def load_heads(files: Sequence[RewardFile], served: Decoder) -> dict[str | None, Head]:
    """Of reward models by name; None: of embeddings. Raises ModelLoadError naming the folder and what is wrong."""
    return {**{file.name: _load(file, served) for file in files}, None: MeanPooling(served)}


def _load(file: RewardFile, served: Decoder) -> LinearHead | SideHead:
    folder, decoder = Path(file.path), served
    if file.side is not None:
        return _load_side(folder, file.side, served)
    if file.format.head == "tokens":
        return _load_tokens(folder, file, served)
    if not file.own:
        # A checkpoint with another head has no output embedding; none is asked for.
        shape = replace(read_shape(folder, heads=True), tied=True)
        loaded = load_weights(folder, shape, served.dtype, served.device)
        decoder = Decoder(shape, loaded, served.dtype, served.device)
    layers = _layers(folder, decoder)
    width = decoder.shape.hidden
    for weight, _ in layers:
        if weight.shape[1] != width:
            raise ModelLoadError(f"{folder}: a head over {weight.shape[1]} values where the model has {width}")
        width = weight.shape[0]
    if width not in (1, 2):
        raise ModelLoadError(f"{folder}: a reward model has one label or two, not {width}")
    return LinearHead(decoder, layers, file.own)


def _load_tokens(folder: Path, file: RewardFile, served: Decoder) -> LinearHead:
    """A language model's probability of one token against another."""
    shape = read_shape(folder)
    decoder = Decoder(shape, load_weights(folder, shape, served.dtype, served.device), served.dtype, served.device)
    chat = ChatFormat.load(folder)
    bad, good = (chat.tokenize_bare(word)[-1] for word in (file.format.bad, file.format.good))
    head_HV = decoder.weights.head
    assert isinstance(head_HV, torch.Tensor)  # the layout is plain
    columns = head_HV[:, [bad, good]].t().float().contiguous()
    return LinearHead(decoder, ((columns, None),), own=False)


def _layers(folder: Path, decoder: Decoder) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """`score.weight`, or `score.0.weight`, `score.2.weight` and so on, with their biases."""
    found = _tensors(folder, decoder.device)
    matrices = sorted(name for name, tensor in found.items() if name.endswith("weight") and tensor.dim() == 2)
    if not matrices:
        raise ModelLoadError(f"{folder}: no head found: no tensor score.weight")
    return tuple((found[name], found.get(name.removesuffix("weight") + "bias")) for name in matrices)


def _load_side(folder: Path, sizes: tuple[int, int], decoder: Decoder) -> SideHead:
    network = SideNetwork(decoder.shape.hidden, *sizes)
    tensors = _tensors(folder, torch.device("cpu"))
    try:
        network.load_state_dict({name.removeprefix(NAMES[0]): tensor for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise ModelLoadError(f"{folder}: {str(error).splitlines()[1].strip()}") from None
    return SideHead(decoder, network.to(decoder.device).eval().requires_grad_(False))


def _tensors(folder: Path, device: torch.device) -> dict[str, Tensor]:
    """Those of the head, in fp32. Raises ModelLoadError."""
    return {
        name: tensor.to(device, torch.float32)
        for name, tensor in ModelFolder(folder).tensors()
        if name.removeprefix(WRAPPED).startswith(NAMES)
    }
