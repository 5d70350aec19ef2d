"""The trace is the fold of the events; the ring forgets the oldest."""

from __future__ import annotations

import json

from reason_engine.runtime.trace import (
    Closed,
    Delta,
    Event,
    Opened,
    Proposed,
    Sampled,
    Scored,
    Trace,
    TraceRing,
    to_json,
)

EVENTS: list[Event] = [
    Opened(0, None, "vote"),
    Opened(1, 0, "path 0", "path", "sample", "2+2?"),
    Delta(1, "it is "),
    Delta(1, "4"),
    Sampled(1, "it is 4", "stop", 3, "4", -0.5),
    Scored(1, 0.9, "judge"),
    Proposed(0, "4", 1.0),
    Closed(0, {"votes": [["4", 1]]}),
]


def test_fold() -> None:
    trace = Trace.from_events(EVENTS, {"id": "x"})
    root, path = trace.nodes
    assert (root.name, root.proposed, root.notes, root.closed) == ("vote", "4", {"votes": [["4", 1]]}, 0.0)
    assert (path.parent, path.text, path.tokens, path.answer) == (0, "it is 4", 3, "4")
    assert path.scores == ({"by": "judge", "value": 0.9},)
    assert trace.children(0) == [path]


def test_deltas_alone_show_a_path_that_is_still_growing() -> None:
    assert Trace.from_events(EVENTS[:4]).nodes[1].text == "it is 4"


def test_json_of_trace_and_events() -> None:
    data = json.loads(json.dumps(Trace.from_events(EVENTS, {"id": "x"}).to_json()))
    assert data["object"] == "trace"
    assert data["id"] == "x"
    assert [node["id"] for node in data["nodes"]] == [0, 1]
    assert [to_json(event)["kind"] for event in EVENTS[:3]] == ["opened", "opened", "delta"]


def test_ring_keeps_the_last() -> None:
    ring = TraceRing(2)
    for name in "abc":
        ring.put(name, Trace())
    assert (ring.get("a"), len(ring), ring.dropped) == (None, 2, 1)
    assert ring.get("c") is not None
