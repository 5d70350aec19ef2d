"""Runs in two processes: the losses, the model and the checkpoints of one process with the same batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reason_engine.errors import SetupError
from reason_engine.training.common.distributed import Distributed, check_distributed
from reason_engine.training.common.encode import Encoded
from reason_engine.training.run import LAUNCH, launch_command, prepare, run
from reason_engine.training.supervised.sft import SftConfig
from tests.models import write_model
from tests.training.test_methods import PAIRS, SPOKEN, lines

torch = pytest.importorskip("torch")
FSDP = {"ACCELERATE_USE_FSDP": "true"}
ZERO3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=2)


def recipe(base: Path, folder: Path, rows: Any = SPOKEN, **changes: Any) -> Path:
    file = folder / "recipe.json"
    data = lines(folder / "rows.jsonl", rows)
    file.write_text(
        json.dumps(
            {
                "out": str(folder / "out"), "model": str(base), "data": str(data), "tokens": 900, "batch": 9,
                "micro_tokens": 128, "precision": "fp32", "threads": 1, "log_every": 1, "optimiser": "adamw",
                "adamw_rate": 0.003, "max_length": 128, **changes,
            }
        )
    )  # fmt: skip
    return file


def both(job: Callable[[], None], environment: dict[str, str] | None = None) -> list[str]:
    """Do this in two processes, as a launcher would start them; what each ended with, empty for well.

    They are forked, since importing torch twice takes longer than all they do."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = context.SimpleQueue()

    def child(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", **(environment or {}),
        }  # fmt: skip
        try:
            job()
        except BaseException as error:
            said.put(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            os._exit(1)
        said.put("")
        os._exit(0)

    children = [context.Process(target=child, args=(rank,), daemon=True) for rank in range(2)]
    for one in children:
        one.start()
    try:
        for one in children:
            one.join(120)
            assert one.exitcode is not None, "a process waits for the other one"
    finally:
        for one in children:
            one.kill()
    return sorted(said.get() for _ in children)


def done(_: object) -> None:
    """What a run tells stands in its folder."""


def told(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(row) for row in (folder / "out" / "log.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("step", "tokens", "loss", "norm")} for row in rows]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    """The same log and the same model, up to the order of sums."""
    for mine, theirs in zip(told(one), told(other), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-4, abs=2e-4)
    first, second = weights(one / "out"), weights(other / "out")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name].float(), tensor.float(), rtol=0.02, atol=0.004)


CASES: dict[str, tuple[str, Any, dict[str, Any], dict[str, str]]] = {
    "replicated": ("sft", SPOKEN, {"optimiser": "muon", "muon_rate": 0.01}, {}),
    "a reference": ("dpo", PAIRS, {}, {}),
    "ewc": ("sft", SPOKEN, {"ewc": 10.0, "fisher_rows": 4}, {}),
    "sharded": ("sft", SPOKEN, {}, FSDP),
    "a sharded head": ("reward", PAIRS, {}, FSDP),
    "zero3": ("sft", SPOKEN, {}, ZERO3),
}
CHEAP = ("replicated", "sharded")


@pytest.mark.filterwarnings("ignore:This process")  # newer Pythons warn of forks
@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[] if name in CHEAP else [pytest.mark.slow]) for name in CASES]
)
def test_two_processes_learn_what_one_does(base: Path, tmp_path: Path, case: str) -> None:
    method, rows, changes, environment = CASES[case]
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        if "ewc" in changes:
            changes = {**changes, "old": str(lines(folder / "old.jsonl", SPOKEN))}
        recipe(base, folder, rows, **changes)
    run(method, prepare(method, one / "recipe.json"))
    config = prepare(method, two / "recipe.json")
    assert both(lambda: done(run(method, config)), environment) == ["", ""]
    assert_same(one, two)
    assert not (two / "out" / "checkpoint").exists()
    manifest = json.loads((two / "out" / "manifest.json").read_text())
    assert manifest["metrics"]["tokens"] == told(two)[-1]["tokens"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["replicated", "sharded"])
@pytest.mark.parametrize("then", ["two", "one"])
def test_a_stopped_run_goes_on_in_as_many_processes_or_in_one(
    base: Path, tmp_path: Path, environment: dict[str, str], then: str
) -> None:
    """LoRA, so that what is written is merged from a whole model, which no process has where weights are in parts."""
    pytest.importorskip("peft")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        recipe(base, folder, peft="lora", save_every=200, keep_every=400)
    run("sft", prepare("sft", one / "recipe.json"))
    config = prepare("sft", two / "recipe.json")

    def stop(row: Any) -> None:
        if row.get("step") == 3:
            raise KeyboardInterrupt

    assert all(both(lambda: done(run("sft", config, tell=stop)), environment))
    assert (two / "out" / "checkpoint" / "state.pt").is_file() and not (two / "out" / "config.json").exists()
    if then == "one":
        run("sft", config)
    else:
        assert both(lambda: done(run("sft", config)), environment) == ["", ""]
    assert told(two)[-1] == pytest.approx(told(one)[-1], rel=2e-4, abs=2e-4)
    for part in ("out", "out/adapter", "out/at-400"):
        name = "model" if part == "out" else "adapter_model"
        first, second = (folder / part / f"{name}.safetensors" for folder in (one, two))
        from safetensors.torch import load_file

        mine, theirs = load_file(first), load_file(second)
        assert mine.keys() == theirs.keys()
        for key, tensor in mine.items():
            torch.testing.assert_close(theirs[key].float(), tensor.float(), rtol=0.02, atol=0.004)


def test_shares_are_a_batch_and_of_equally_many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [Encoded([1] * (3 + number % 7 * 5), []) for number in range(11)]
    processes, seen, passes = Distributed(), list[int](), set[int]()
    processes.size = 3
    for processes.rank in range(3):
        groups = processes.share(batch, 40)
        passes.add(len(groups))
        seen += [len(one.ids) for group, counts in groups for one in group if counts]
        assert all(group for group, _ in groups)
    assert sorted(seen) == sorted(len(one.ids) for one in batch) and len(passes) == 1


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({"optimiser": "muon"}, FSDP, "muon.*adamw"),
        ({"ewc": 1.0, "old": "x"}, FSDP, "ewc"),
        ({"compile": True}, FSDP, "compile"),
        ({"peft": "prompt"}, FSDP, "prompt"),
        ({"batch": 1}, {}, "batch: 1"),
        ({}, {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "stage 2"),
    ],
)
def test_what_several_processes_cannot_do_is_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any], environment: dict[str, str], said: str,
) -> None:  # fmt: skip
    config = SftConfig.model_validate_json(recipe(base, tmp_path, **changes).read_text())
    check_distributed(config, 0, sampled=False)
    for name, value in {"WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match=said):
        check_distributed(config, 0, sampled=False)


def test_methods_that_need_one_process_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    config = SftConfig.model_validate_json(recipe(base, tmp_path).read_text())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SetupError, match="one process only"):
        check_distributed(config, 0, sampled=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SetupError, match="second model"):
        check_distributed(config, 1, sampled=False)
    with pytest.raises(SetupError, match=r"grpo draws.*verl"):
        run("grpo", _Online(tmp_path))


class _Online:
    """A config of a method that is not supervised."""

    def __init__(self, out: Path) -> None:
        self.out = out


def test_the_shipped_configurations_are_accelerates_own(base: Path, tmp_path: Path) -> None:
    default = pytest.importorskip("accelerate.commands.config.config_args")
    config = SftConfig.model_validate_json(recipe(base, tmp_path).read_text())
    kinds = {"replicated": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"}
    assert {file.stem for file in LAUNCH.glob("*.yaml")} == set(kinds)
    for name, kind in kinds.items():
        read = default.load_config_from_file(str(LAUNCH / f"{name}.yaml"))  # refuses keys that it does not know
        assert read.distributed_type == kind and read.mixed_precision == "no"
        if name != "zero3":
            command = launch_command(name, 3, config, ["train", "sft"])
            assert command[-3:] == ["reason_engine.cli.main", "train", "sft"] and "3" in command
    with pytest.raises(SetupError, match="one of: fsdp2, replicated, zero3"):
        launch_command("fsdp3", 2, config, [])
    with pytest.raises(SetupError, match="hand-over verl"):
        launch_command("fsdp2", 2, _Online(tmp_path), [])
