"""Where a decode step of the embedded engine spends its time: products, attention, small operations, sampling, Python.

    python -m tests.bench.profile_step [--model DIR] [--weights full|int8] [--threads N] [--rows 1,16] [--prompt 128]
        [--steps 20] [--operations]

torch's profiler times every operation of whole scheduler steps; operations are sorted by what they do. `python` is
what is left of a step that is not profiled: the calls between the operations, ours and torch's. The profiler's own cost
is in the profiled times only, so that `python` is rather too small; `--operations` lists the dearest ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.bench._measure import machine
from tests.bench.bench_prefix import SHAPE, Runner
from tests.models import write_model

KINDS = {
    "products": ("mm", "linear", "_weight_int", "bmm", "qlinear"),
    "attention": ("attention", "sdpa"),
    "sampling": ("cumsum", "searchsorted", "softmax", "topk", "argmax", "exp_", "logsumexp", "sort"),
}
"""By parts of an operation's name; the first that fits. All others are small operations."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--weights", default="full")
    parser.add_argument("--rows", default="1,16")
    for name, usual in (("threads", 0), ("prompt", 128), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--operations", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or write_model(Path(folder) / "model", **SHAPE)
        runner = Runner(model, "auto", options.threads, options.weights)
        print(f"{machine()}, {model.name}, weights {options.weights}: {runner.precision}\n")
        print("| rows | step, ms | products | attention | sampling | small operations | python |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for rows in map(int, options.rows.split(",")):
            _profile(runner, rows, options.prompt, options.steps, options.operations)


def _profile(runner: Runner, rows: int, prompt: int, steps: int, listed: bool) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    with torch.inference_mode():
        runner.start([(runner.prompt(prompt), rows)], 4 * steps)
        for _ in range(steps):
            runner.scheduler.step()
        begun = time.perf_counter()
        for _ in range(steps):
            runner.scheduler.step()
        step = (time.perf_counter() - begun) / steps
        with profile(activities=[ProfilerActivity.CPU]) as made:
            for _ in range(steps):
                runner.scheduler.step()
        runner.end()
    spent, dearest = Counter[str](), Counter[str]()
    for event in made.key_averages():
        seconds = event.self_cpu_time_total / 1e6 / steps
        spent[_kind(event.key)] += seconds
        dearest[f"{event.key} x{event.count // steps}"] += seconds
    left = max(0.0, step - sum(spent.values()))
    order = (spent["products"], spent["attention"], spent["sampling"], spent["small"], left)
    print(
        f"| {rows} | {step * 1e3:.1f} | " + " | ".join(f"{part * 1e3:.1f} ({part / step:.0%})" for part in order), "|"
    )
    for name, seconds in dearest.most_common(14 if listed else 0):
        print(f"    {seconds * 1e3:7.2f} ms  {name}")


def _kind(operation: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), "small")


if __name__ == "__main__":
    main()
