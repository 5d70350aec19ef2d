"""What happens inside a run, as it happens: six kinds of event, appended only. The stored trace is their fold.

`node` is the place in the trace tree, numbered in the order of opening; node 0 is the run itself. `at` is in seconds
since the run began and is the only field that differs between two runs of the same seed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from reason_engine.types import FinishReason


@dataclass(frozen=True, slots=True)
class Opened:
    """A node begins: a `span` (part of a strategy) or a `path` (one sample). `live`: this path's text is the answer
    itself and may be shown as it is made."""

    node: int
    parent: int | None
    name: str
    role: Literal["span", "path"] = "span"
    stage: str = ""
    prompt: str = ""
    prefill: str = ""
    live: bool = False
    at: float = 0.0
    kind: Literal["opened"] = "opened"


@dataclass(frozen=True, slots=True)
class Delta:
    """A path gained text."""

    node: int
    text: str
    at: float = 0.0
    kind: Literal["delta"] = "delta"


@dataclass(frozen=True, slots=True)
class Sampled:
    """A path ended. `text` is whole (prefill excluded); `tokens` were generated for it. `strength`,
    `weight` and `cut` are those of `Path`."""

    node: int
    text: str
    finish_reason: FinishReason
    tokens: int
    answer: str | None = None
    mean_logprob: float | None = None
    strength: Literal["strong", "weak", "forced"] | None = None
    weight: float = 1.0
    cut: bool = False
    at: float = 0.0
    kind: Literal["sampled"] = "sampled"


@dataclass(frozen=True, slots=True)
class Scored:
    """A judgement on a node by a verifier, or by the model's own probabilities."""

    node: int
    value: float
    by: str = ""
    detail: str = ""
    at: float = 0.0
    kind: Literal["scored"] = "scored"


@dataclass(frozen=True, slots=True)
class Proposed:
    """The best answer so far changed."""

    node: int
    answer: str | None
    score: float
    at: float = 0.0
    kind: Literal["proposed"] = "proposed"


@dataclass(frozen=True, slots=True)
class Closed:
    """A node is done; `notes` is what the strategy noted on it."""

    node: int
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    at: float = 0.0
    kind: Literal["closed"] = "closed"


Event = Opened | Delta | Sampled | Scored | Proposed | Closed


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object; `kind` tells which one it is."""
    return asdict(event)


def from_json(value: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote. Raises ValueError on anything else."""
    kinds: Mapping[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}
    try:
        return kinds[value["kind"]](**value)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {error}") from None


@dataclass(frozen=True, slots=True)
class Node:
    """A span or a path of the run. `parent` is None for the run itself (node 0)."""

    id: int
    parent: int | None
    name: str
    role: str = "span"
    stage: str = ""
    prompt: str = ""
    prefill: str = ""
    text: str = ""
    finish_reason: str | None = None
    tokens: int = 0
    answer: str | None = None
    mean_logprob: float | None = None
    strength: str | None = None
    weight: float = 1.0
    cut: bool = False
    scores: tuple[Mapping[str, Any], ...] = ()
    proposed: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    opened: float = 0.0
    closed: float | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Nodes in the order of opening; `meta` says what was asked and what came out."""

    nodes: tuple[Node, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def from_events(cls, events: Iterable[Event], meta: Mapping[str, Any] | None = None) -> Trace:
        """Fold events; the only way to make a trace."""
        nodes: dict[int, Node] = {}
        for event in events:
            if event.kind == "opened":
                given = (event.name, event.role, event.stage, event.prompt, event.prefill)
                nodes[event.node] = Node(event.node, event.parent, *given, opened=event.at)
            elif event.node in nodes:
                nodes[event.node] = _fold(nodes[event.node], event)
        return cls(tuple(nodes.values()), dict(meta or {}))

    def to_json(self) -> dict[str, Any]:
        """The trace as a JSON object: `meta` and `nodes`."""
        return {"object": "trace", **self.meta, "nodes": [asdict(node) for node in self.nodes]}

    def children(self, node: int | None) -> list[Node]:
        """The nodes right below one node, in order."""
        return [child for child in self.nodes if child.parent == node]


class TraceRing:
    """The last `capacity` traces by response id, oldest dropped first. `dropped` counts them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self.dropped = 0

    def put(self, response_id: str, trace: Trace) -> None:
        self._traces[response_id] = trace
        while len(self._traces) > self._capacity:
            self._traces.popitem(last=False)
            self.dropped += 1

    def get(self, response_id: str) -> Trace | None:
        return self._traces.get(response_id)

    def __len__(self) -> int:
        return len(self._traces)


def _fold(node: Node, event: Event) -> Node:
    match event.kind:
        case "delta":
            return replace(node, text=node.text + event.text)
        case "sampled":
            found = {name: getattr(event, name) for name in _SAMPLED}
            return replace(node, closed=event.at, **found)
        case "scored":
            detail = {"detail": event.detail} if event.detail else {}
            return replace(node, scores=(*node.scores, {"by": event.by, "value": event.value, **detail}))
        case "proposed":
            return replace(node, proposed=event.answer)
        case "closed":
            return replace(node, notes={**node.notes, **event.notes}, closed=event.at)
        case "opened":
            return node


_SAMPLED = ("text", "finish_reason", "tokens", "answer", "mean_logprob", "strength", "weight", "cut")
