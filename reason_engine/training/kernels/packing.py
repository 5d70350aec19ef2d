"""Rows of any lengths in one pass without padding: their tokens stand one after the other, attention keeps to each row.

    row i attends   k_i = [k of its prompt, k of its own tokens]     causal within its own, block-diagonal over all rows

Everything but attention sees (1, ΣT) tokens. Answers to one prompt share its reading: it stands once, and its keys and
values serve all of them, gradients included. The causal attention of a row is a call of torch's fused kernel, which
keeps no matrix of probabilities; on a GPU in half precision one call of its variable-length kernel serves all rows.

How it gets into a model: transformers' models take their attention from a registry, by name, and pass on what they do
not know. What a model does with it is checked once against its own attention; one that has windows, drops attention
out, or comes out otherwise reads padded rows as before.

Shape suffixes: B rows, T places, D hidden size, H heads, K key-value heads, E head size, N places that are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reason_engine.training.common.encode import padded
from reason_engine.training.kernels.fused import fuse, liger

PACKED = "reason_packed"
TOLERANCE = {"fp32": 1e-3, "bf16": 0.05}
"""How far packed states may be from a model's own, relative to their size."""


class Body:
    """A model's body over padded rows. Calling it: token ids (B, T) to states (B, T, D) after the final norm."""

    packs = False
    """Whether `rows` and `after` go without padding."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        self._run = run

    def __call__(self, ids_BT: Tensor) -> Tensor:
        return self._run(ids_BT)

    def rows(self, rows: Sequence[Sequence[int]], device: Any) -> Tensor:
        """States of all tokens, row after row, (ΣT, D)."""
        ids_BT, real_BT = pad_ids(rows)
        return self(ids_BT.to(device))[real_BT.to(device)]

    def after(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]], device: Any) -> Tensor:
        """Of each row the states by which its answer's tokens are predicted: (N, D), row after row."""
        ids_BT, real_BT = pad_ids([(*a, *b)[:-1] for a, b in zip(prompts, answers, strict=True)])
        for real_T, prompt in zip(real_BT, prompts, strict=True):
            real_T[: len(prompt) - 1] = False
        return self(ids_BT.to(device))[real_BT.to(device)]


class PackedBody(Body):
    """The same without padding where the model can; `learned`: states that stand before each row as its first tokens
    do (of prompt tuning), (P, D)."""

    def __init__(self, model: Any, precision: str = "fp32", learned: Callable[[], Tensor] | None = None) -> None:
        super().__init__(self._padded)
        if not liger(model):
            fuse(model)
        self._model, self._learned = model.base_model, learned
        self.packs = can_pack(model, precision)

    def rows(self, rows: Sequence[Sequence[int]], device: Any) -> Tensor:
        if not self.packs:
            return super().rows(rows, device)
        return self._read([Piece(tuple(row)) for row in rows], device)

    def after(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]], device: Any) -> Tensor:
        if not self.packs:
            return super().after(prompts, answers, device)
        numbers: dict[tuple[int, ...], int] = {}
        of = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
        own = [Piece(answer[:-1], number) for answer, number in zip(answers, of, strict=True)]
        pieces = [*map(Piece, numbers), *own]
        ends, at = list[int](), 0
        for piece in pieces:
            at += len(piece.ids)
            ends.append(at)
        wanted = [
            place
            for row, number in enumerate(of, len(numbers))
            for place in (ends[number] - 1, *range(ends[row] - len(pieces[row].ids), ends[row]))
        ]
        return self._read(pieces, device).index_select(0, torch.tensor(wanted, device=device))

    def _read(self, pieces: Sequence[Piece], device: Any) -> Tensor:
        """States of the pieces' own tokens, (ΣT, D)."""
        learned_PD = None if self._learned is None else self._learned()
        return read_pieces(self._model, pieces, device, learned_PD)

    def _padded(self, ids_BT: Tensor) -> Tensor:
        if self._learned is None:
            return self._model(input_ids=ids_BT, use_cache=False).last_hidden_state
        embedded = self._model.get_input_embeddings()(ids_BT)
        learned_BPD = self._learned().to(embedded.dtype).expand(len(ids_BT), -1, -1)
        hidden = self._model(inputs_embeds=torch.cat((learned_BPD, embedded), 1), use_cache=False).last_hidden_state
        return hidden[:, learned_BPD.shape[1] :]


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that stand together; `parent`: the number of the piece before them, which they attend to as well."""

    ids: tuple[int, ...]
    parent: int | None = None


@dataclass(slots=True)
class Layout:
    """Where pieces with any tokens stand: their lengths, and the number of each one's parent among them."""

    lengths: list[int]
    parents: list[int | None]
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor])

    def later(self, own: int, before: int, device: torch.device) -> Tensor:
        """True where a query (own) may attend to a key (before, then own)."""
        found = self.kept.get((own, before))
        if found is None:
            found = torch.ones(own, before + own, dtype=torch.bool, device=device).tril(before)
            self.kept[own, before] = found
        return found


def read_pieces(model: Any, pieces: Sequence[Piece], device: Any, learned_PD: Tensor | None = None) -> Tensor:
    """One pass of a model's body over the pieces: states of their tokens, (ΣT, D)."""
    extra = 0 if learned_PD is None else len(learned_PD)
    ids, places, own = list[int](), list[int](), list[bool]()
    lengths, parents, numbers = list[int](), list[int | None](), dict[int, int]()
    for number, piece in enumerate(pieces):
        first = extra if piece.parent is None else 0
        begin = 0 if piece.parent is None else extra + len(pieces[piece.parent].ids)
        if not (count := first + len(piece.ids)):
            continue
        numbers[number] = len(lengths)
        lengths.append(count)
        parents.append(None if piece.parent is None else numbers[piece.parent])
        ids += [*[0] * first, *piece.ids]
        own += [*[False] * first, *[True] * len(piece.ids)]
        places += range(begin, begin + count)
    where = {"position_ids": torch.tensor([places], device=device), "layout": Layout(lengths, parents)}
    ids_1T = torch.tensor([ids], device=device)
    if learned_PD is None:
        return model(input_ids=ids_1T, use_cache=False, **where).last_hidden_state[0]
    own_T = torch.tensor(own, device=device)
    embedded_1TD = model.get_input_embeddings()(ids_1T)
    turns = len(own_T[~own_T]) // extra
    mixed_1TD = embedded_1TD.masked_scatter(~own_T[None, :, None], learned_PD.to(embedded_1TD.dtype).repeat(turns, 1))
    return model(inputs_embeds=mixed_1TD, use_cache=False, **where).last_hidden_state[0][own_T]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: (B, H, T, E), (B, K, T, E) twice, to (B, T, H, E). Without a layout it is
    causal over rows that are padded on the right."""
    del module, attention_mask, others
    if layout is None:
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        return mixed.transpose(1, 2), None
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _on_gpu(query[0], key[0], value[0], scaling, layout)[None], None
    keys, values = key.split(layout.lengths, 2), value.split(layout.lengths, 2)
    parts = list[Tensor]()
    for number, own in enumerate(query.split(layout.lengths, 2)):
        k, v, parent = keys[number], values[number], layout.parents[number]
        if parent is None:
            mixed = scaled_dot_product_attention(own, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        else:
            k, v = torch.cat((keys[parent], k), 2), torch.cat((values[parent], v), 2)
            mask = layout.later(own.shape[2], keys[parent].shape[2], own.device)
            mixed = scaled_dot_product_attention(own, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)
        parts.append(mixed)
    return torch.cat(parts, 2).transpose(1, 2), None


def _on_gpu(query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, scaling: float | None, layout: Layout) -> Tensor:
    """By the variable-length kernel, whose causal mask is aligned with the last key: (T, H, E)."""
    from torch.nn.attention.varlen import varlen_attn

    starts = [0]
    for length in layout.lengths:
        starts.append(starts[-1] + length)
    read, counts = list[int](), list[int]()
    for number, parent in enumerate(layout.parents):
        spans = [number] if parent is None else [parent, number]
        read += [place for span in spans for place in range(starts[span], starts[span + 1])]
        counts.append(sum(layout.lengths[span] for span in spans))
    ends = [0]
    for count in counts:
        ends.append(ends[-1] + count)
    device = query_HTE.device
    read_M = torch.tensor(read, device=device)
    key_MKE, value_MKE = (x.transpose(0, 1).index_select(0, read_M) for x in (key_KTE, value_KTE))
    cu_q, cu_k = (torch.tensor(one, dtype=torch.int32, device=device) for one in (starts, ends))
    found = varlen_attn(
        query_HTE.transpose(0, 1), key_MKE, value_MKE, cu_q, cu_k, max(layout.lengths), max(counts),
        scale=scaling, window_size=(-1, 0), enable_gqa=True,
    )  # fmt: skip
    assert isinstance(found, Tensor)
    return found


def can_pack(model: Any, precision: str = "fp32") -> bool:
    """Whether this model, whose attention is from now on this module's, gives the states that it gives by its own. One
    that does not keeps its own."""
    from transformers import AttentionInterface

    body = model.base_model
    own, settings = body.config._attn_implementation, body.config.to_dict()
    if own == PACKED:
        return True
    if not attends_to_all(settings) or settings.get("attention_dropout"):
        return False
    AttentionInterface.register(PACKED, attend)
    device, most = next(body.parameters()).device, settings["vocab_size"]
    seeded = torch.Generator().manual_seed(0)
    ids = torch.randint(0, most, (40,), generator=seeded).tolist()
    pieces = [Piece(tuple(ids[:9])), Piece(tuple(ids[9:20])), Piece(tuple(ids[20:26]), 0), Piece(tuple(ids[26:]), 0)]
    rows = [ids[:9], ids[9:20], ids[:9] + ids[20:26], ids[:9] + ids[26:]]
    training = body.training
    body.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        wanted = [body(torch.tensor([row], device=device), use_cache=False).last_hidden_state[0] for row in rows]
        wanted = torch.cat([one[-len(piece.ids) :] for one, piece in zip(wanted, pieces, strict=True)])
        body.set_attn_implementation(PACKED)
        try:
            found = read_pieces(body, pieces, device)
            off = float((found - wanted).norm() / wanted.norm())
        except (TypeError, ValueError, RuntimeError, ImportError):  # a body that takes or passes on no layout
            off = float("inf")
    body.train(training)
    if off < TOLERANCE[precision]:
        return True
    body.set_attn_implementation(own)
    return False


def attends_to_all(config: dict[str, Any]) -> bool:
    """Whether every place sees all before it: a window would be counted over other rows."""
    kinds = config.get("layer_types")
    return all(kind == "full_attention" for kind in kinds) if kinds else not config.get("sliding_window")


def pad_ids(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids with zeros on the right, (B, T), and where there are any."""
    width = padded(max(len(row) for row in rows))
    table, real = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.bool)
    for at, row in enumerate(rows):
        table[at, : len(row)] = torch.tensor(row, dtype=torch.long)
        real[at, : len(row)] = True
    return table, real
