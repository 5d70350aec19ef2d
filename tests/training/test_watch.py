"""What can be seen of a run: samples, curves, the page, what changed; a finished run stays, no step stands twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reason_engine.errors import MissingExtra, SetupError
from reason_engine.progress import duration, reporter
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.run import run
from reason_engine.training.watch.page import write_page
from reason_engine.training.watch.read import changes, read_run
from reason_engine.training.watch.samples import PATIENCE, Samples, keep_until
from reason_engine.training.watch.show import show_run, sparkline
from reason_engine.training.watch.trackers import Trackers, check_installed, names_of
from tests.training.online import Killed, config, kill_at, log, scripted_batch


def rows_of(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (out / name).read_text().splitlines()]


def test_a_killed_run_has_each_step_once_and_a_finished_one_stays(policy: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "o", list[str]()
    changes_ = {"steps": 5, "save_every": 2, "keep_samples": 3}
    with pytest.raises(Killed):
        run("grpo", config(GrpoConfig, policy, out, **changes_), tell=kill_at(4))
    assert [row["step"] for row in log(out)] == [1, 2, 3, 4]
    first = run("grpo", config(GrpoConfig, policy, out, **changes_))
    assert [row["step"] for row in log(out)] == [1, 2, 3, 4, 5]
    samples = rows_of(out, "samples.jsonl")
    assert [row["step"] for row in samples] == [step for step in range(1, 6) for _ in range(3)]
    assert {"question", "text", "reward", "tokens", "finish", "answer", "reference"} <= set(samples[0])
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = run("grpo", config(GrpoConfig, policy, out, **changes_), tell=lambda row: told.append(str(row)))
    assert again == first and len(told) == 1 and "finished, at step 5; --fresh" in told[0]
    run("grpo", config(GrpoConfig, policy, out, **changes_, threads=None, log_every=3))  # changes nothing of the result
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SetupError, match=r"finished run with another steps \(5\).*--fresh"):
        run("grpo", config(GrpoConfig, policy, out, steps=6, save_every=2))
    with pytest.raises(SetupError, match=r"finished run with another method \(grpo\)"):
        from reason_engine.training.online.rloo import RlooConfig

        run("rloo", config(RlooConfig, policy, out, **changes_))
    run("grpo", config(GrpoConfig, policy, out, steps=1), fresh=True)
    assert [row["step"] for row in log(out)] == [1] and {row["step"] for row in rows_of(out, "samples.jsonl")} == {1}
    (out / "manifest.json").write_text("{}")
    with pytest.raises(SetupError, match=r"manifest\.json: KeyError"):
        run("grpo", config(GrpoConfig, policy, out, steps=1))


def folder(tmp_path: Path, **more: Any) -> Path:
    """A run of forty steps as files."""
    out = tmp_path / "run"
    out.mkdir()
    shared = {"left": 5, "seconds": 8.0, "speed": 10, "memory": 10**9}
    log_rows = [{"step": n, "tokens": 10 * n, "loss": 4 / n, "reward": n / 40, **shared} for n in range(1, 41)]
    (out / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log_rows))
    kept = {"question": "<b>1+1?</b>", "reference": "2", "text": "It is\n<script>2</script>", "answer": "2"}
    samples = [{"step": n, **kept, "reward": 1.0, "tokens": 4, "finish": "stop"} for n in (1, 20, 40)]
    (out / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in samples))
    held = [{"step": 0, "tokens": 0, "loss": 3.0}, {"step": 40, "tokens": 400, "loss": 1.5}]
    (out / "held_out.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in held))
    for name, value in more.items():
        (out / f"{name}.json").write_text(json.dumps(value))
    return out


def test_a_run_is_shown_with_curves_changes_and_samples(tmp_path: Path) -> None:
    out = folder(tmp_path)
    view = read_run(out)
    text = show_run(view)
    assert "step 40, 400 tokens, not finished; its last line is" in text
    assert "step 40: <b>1+1?</b>" in text and "  <script>2</script>" in text and "step 20:" not in text
    assert "step 20:" in show_run(view, 20)
    found = {(one.name, one.where): (one.before, one.after) for one in changes(view)}
    assert found["loss", "held out"] == (3.0, 1.5)
    assert found["reward", "log"] == pytest.approx((2.5 / 40, 38.5 / 40))
    with pytest.raises(SetupError, match="--step 7: no samples are kept of it; of these they are: 1 to 40"):
        show_run(view, 7)


def test_the_page_needs_nothing_else_and_says_what_models_say_as_text(tmp_path: Path) -> None:
    out = folder(tmp_path, manifest={"method": "grpo", "config": {"steps": 40}})
    page = write_page(read_run(out)).read_text()
    assert "<script" not in page and "&lt;script&gt;2&lt;/script&gt;" in page and "&lt;b&gt;1+1" in page
    assert "http" not in page and page.count("<svg") == 3 and "grpo: step 40" in page and "finished" in page
    for part in ("<h3>Step 1</h3>", "<h3>Step 20</h3>", "<h3>Step 40</h3>", "held out<td>3<td>1.5<td>-1.5"):
        assert part in page


@pytest.mark.parametrize(
    ("files", "said"),
    [({}, "holds no run"), ({"log.jsonl": ""}, "first step yet"), ({"log.jsonl": "{x\n"}, "log.jsonl: ")],
)
def test_what_is_no_run_is_said(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SetupError, match=said):
        read_run(tmp_path)


def test_lines_after_the_checkpoint_and_a_cut_one_go(tmp_path: Path) -> None:
    from reason_engine.jsonl import JsonLines

    file = JsonLines(tmp_path / "l.jsonl")
    file.append(*({"step": n, "tokens": 5 * n} for n in range(1, 5)))
    with file.path.open("a") as end:
        end.write('{"step": 5, "tok')
    assert keep_until(file, "tokens", 12) == 2 and [line.value()["step"] for line in file.lines()] == [1, 2]
    assert keep_until(JsonLines(tmp_path / "none.jsonl"), "step", 3) == 0


def test_a_reward_that_is_never_above_nought_is_told_once_with_samples(tmp_path: Path) -> None:
    from reason_engine.training.online.environment import BatchRewards

    told: list[Any] = []
    batch = scripted_batch([[3, 2]], BatchRewards([[0.0, 0.0]], [], {}))
    samples = Samples(tmp_path, 0, 0, told.append)
    for step in range(1, PATIENCE + 3):
        samples.keep(step, batch.groups, [[0.0, -1.0]])
    assert len(told) == 1 and "no sample of the first 3 steps was worth more than 0" in told[0]["note"]
    assert "said: xxx" in told[0]["note"] and not (tmp_path / "samples.jsonl").exists()
    samples = Samples(tmp_path, 1, 0, told.append)
    for step in range(1, PATIENCE + 3):
        samples.keep(step, batch.groups, [[0.0, 0.5 if step == 2 else 0.0]])
    assert len(told) == 1 and len(rows_of(tmp_path, "samples.jsonl")) == PATIENCE + 2
    Samples(tmp_path, 1, 7, told.append).keep(7 + PATIENCE, batch.groups, [[0.0, 0.0]])  # it goes on: known to be paid
    assert len(told) == 1


def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []

    class Run:
        id = "r1"

        def log(self, row: dict[str, Any], step: int) -> None:
            if step == 3:
                raise ConnectionError("gone")
            seen.append((step, row))

        def finish(self) -> None:
            seen.append("finished")

    def init(**options: Any) -> Run:
        seen.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]
    return seen


def test_a_tracker_hears_each_line_goes_on_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, told = fake_wandb(monkeypatch), list[Any]()
    settings = SimpleNamespace(tensorboard=False, track=("wandb",), model_dump=lambda mode: {"rate": 1})
    trackers = Trackers(tmp_path, settings, 0, told.append)
    for step in (1, 2, 3, 4):
        trackers.write({"step": step, "loss": 1.0 / step})
    trackers.close()
    assert seen[0]["config"] == {"rate": 1} and [row[0] for row in seen[1:]] == [1, 2] and "resume" not in seen[0]
    assert len(told) == 1 and "wandb fails and is left out from step 3 on: ConnectionError: gone" in told[0]["note"]
    trackers = Trackers(tmp_path, settings, 2, told.append)
    trackers.close()
    assert (seen[3]["id"], seen[3]["resume"], seen[4]) == ("r1", "allow", "finished")

    def refuse(**_: Any) -> None:
        raise RuntimeError("no key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="track: wandb cannot begin: RuntimeError: no key"):
        Trackers(tmp_path, settings, 0, told.append)


def test_a_tracker_that_is_not_installed_is_said_first(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reason_engine.training.watch import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="pip install mlflow"):
        check_installed(["mlflow"])
    with pytest.raises(MissingExtra, match="wandb is not installed"):
        run("grpo", config(GrpoConfig, policy, tmp_path / "o", track=["wandb"]))
    assert not (tmp_path / "o").exists()
    both = config(GrpoConfig, policy, tmp_path, tensorboard=True, track=["tensorboard", "mlflow"])
    assert names_of(both) == ("tensorboard", "mlflow")


def test_the_bar_says_reward_length_and_time_left() -> None:
    import io

    row = {"step": 4, "tokens": 50, "speed": 10, "left": 4000, "loss": 0.25, "reward": 0.5, "length": 31.4}
    tell = reporter(out := io.StringIO(), False)
    tell({**row, "live": True})
    assert "step 4  reward 0.500  length 31  loss 0.2500  10 tokens/s  1 h 06 min left" in out.getvalue()
    tell = reporter(out := io.StringIO(), True)
    tell({**row, "live": True})
    assert out.getvalue() == ""
    assert [duration(value) for value in (0.4, 59, 61, 3599, 7500)] == [
        "0 s",
        "59 s",
        "1 min 01 s",
        "59 min",
        "2 h 05 min",
    ]


def test_a_curve_is_its_means() -> None:
    assert sparkline([0, 0, 1, 1], 2) == "▁█" and sparkline([2.0, 2.0]) == "▁▁" and len(sparkline(range(99), 10)) == 10
