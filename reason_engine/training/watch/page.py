"""A run as one HTML file that needs nothing else: what changed, curves, samples of its beginning, middle and end, and
its config. Every text of the model is escaped; there is no script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from reason_engine.progress import duration
from reason_engine.training.watch.read import RunView, changes
from reason_engine.training.watch.show import samples_of

REPORT = "report.html"
MOST_POINTS = 300
"""Of a curve; more are joined to their means."""
WIDE, HIGH, LEFT, LOW = 360, 150, 52, 18
"""Of a picture and its margins, in pixels."""


def write_page(view: RunView) -> Path:
    """Into the run's folder."""
    path = view.out / REPORT
    path.write_text(page(view), "utf-8")
    return path


def page(view: RunView) -> str:
    """The whole file."""
    title, last = escape(view.out.name), view.log[-1]
    method = escape(str((view.manifest or {}).get("method", "training")))
    facts = f"{escape(view.state)}; {duration(last['seconds'])} in its last part; {last['memory'] / 1e9:.2f} GB at most"
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title}</h1><p>{method}: {facts}</p>",
        *_table(view),
        "<h2>Curves</h2><div class=curves>",
        *(picture(name, view.points(name)) for name in view.curves),
        "</div>",
        *_samples(view),
        *_config(view),
    ]
    return "\n".join(parts) + "\n"


def picture(name: str, points: Sequence[tuple[int, float]]) -> str:
    """One curve as SVG, with its least and greatest value and its steps at the axes."""
    shown = _joined(points)
    (first, last), values = (shown[0][0], shown[-1][0]), [value for _, value in shown]
    low, high = min(values), max(values)

    def place(step: float, value: float) -> str:
        x = LEFT + (step - first) / max(1, last - first) * (WIDE - LEFT - 6)
        y = 8 + (1 - (value - low) / ((high - low) or 1)) * (HIGH - LOW - 14)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(*point) for point in shown)
    texts = ((LEFT - 4, 14, "end", f"{high:.4g}"), (LEFT - 4, HIGH - LOW - 2, "end", f"{low:.4g}"),
             (LEFT, HIGH - 3, "start", f"{first:,}"), (WIDE - 6, HIGH - 3, "end", f"{last:,}"))  # fmt: skip
    labels = "".join(f'<text x="{x}" y="{y}" text-anchor="{at}">{text}</text>' for x, y, at, text in texts)
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><svg viewBox="0 0 {WIDE} {HIGH}" role="img" '
        f'aria-label="{escape(name)} by step"><rect x="{LEFT}" y="4" width="{WIDE - LEFT - 4}" '
        f'height="{HIGH - LOW - 6}"/><polyline points="{line}"/>{labels}</svg></figure>'
    )


def _joined(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    each = -(-len(points) // MOST_POINTS)
    groups = [points[at : at + each] for at in range(0, len(points), each)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def _table(view: RunView) -> Iterator[str]:
    found = changes(view)
    if not found:
        return
    yield "<h2>Before and after</h2><table><tr><th><th>of<th>before<th>after<th>change</tr>"
    for one in found:
        cells = f"<td>{one.before:.4g}<td>{one.after:.4g}<td>{one.after - one.before:+.4g}"
        yield f"<tr><td>{escape(one.name)}<td>{one.where}{cells}</tr>"
    yield "</table><p>Held out: rows that are not learned. Log: means of the first and the last tenth of its lines.</p>"


def _samples(view: RunView) -> Iterator[str]:
    steps = view.steps
    if not steps:
        return
    yield "<h2>Samples</h2>"
    for step in dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])):
        yield f"<h3>Step {step:,}</h3>"
        yield from map(_sample, samples_of(view, step))


def _sample(row: Mapping[str, Any]) -> str:
    about = f"reward {row['reward']:g}, {row['tokens']} tokens, {row['finish']}"
    if row["reference"] is not None:
        about += f"; wanted {row['reference']}, read {row['answer']}"
    return (
        f"<details open><summary>{escape(about)}</summary><p class=asked>{escape(row['question'])}</p>"
        f"<pre>{escape(row['text'])}</pre></details>"
    )


def _config(view: RunView) -> Iterator[str]:
    if view.manifest is not None:
        text = json.dumps({name: view.manifest.get(name) for name in ("config", "packages", "base", "data")}, indent=1)
        yield f"<details><summary>Config</summary><pre>{escape(text)}</pre></details>"


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1140px;margin:2em auto;padding:0 1em;color:#1a1a1a;background:#fff}
table{border-collapse:collapse}td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #8884}
td:first-child{text-align:left}.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:1em}
figure{margin:0}figcaption{font-weight:600}svg{width:100%}svg rect{fill:#8881}
polyline{fill:none;stroke:#2563eb;stroke-width:1.6}text{font-size:10px;fill:#777}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8881;padding:.6em}.asked{font-style:italic}
@media (prefers-color-scheme:dark){body{color:#ddd;background:#161616}polyline{stroke:#7aa7ff}}
"""
