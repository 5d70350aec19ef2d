"""What an online run finds out before anything heavy is imported."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training import memory as _memory
from reason_engine.training import trainers
from reason_engine.training.common import preflight as _preflight
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.online.ppo import PpoConfig
from reason_engine.training.run import run
from reason_engine.verifiers.code import Sandbox
from tests.models import UNSERVABLE, changed
from tests.training.online import WORDS, config

METHODS = ("grpo", "rloo", "ppo", "online-dpo")


def refused(method: str, policy: Path, out: Path, **changes: Any) -> str:
    """Why a run does not begin; nothing stands in `out`."""
    with pytest.raises(SetupError) as found:
        run(method, config(trainers.get(method).config, policy, out, **changes))
    assert not out.exists()
    return str(found.value)


@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_it_found(method: str, policy: Path, tmp_path: Path) -> None:
    said: list[str] = []
    kind = trainers.get(method).config
    run(method, config(kind, policy, tmp_path, steps=1), tell=lambda row: said.append(str(row.get("note", ""))))
    text = "\n".join(said)
    for part in ("Qwen3ForCausalLM, by vLLM", "a mixture of 1 families", "memory: about", "disk: ", "rewards: length"):
        assert part in text


@pytest.mark.parametrize("file, key, value, said", UNSERVABLE)
def test_a_base_that_cannot_be_served_is_refused(
    policy: Path, tmp_path: Path, file: str, key: str, value: object, said: str
) -> None:
    other = changed(policy, tmp_path / "other", file, key, value)
    assert said in refused("grpo", other, tmp_path / "o")


@pytest.mark.parametrize(
    "rows, said",
    [
        (['{"prompt": "1 + 1?", "answer": "2"}', '{"prompt": "1 + 2?"}'], "d.jsonl:2: `answer`"),
        (['{"prompt": "1 + 1?", "answer": "2"}', "{"], "d.jsonl:2"),
        (['{"chosen": "a", "rejected": "b", "prompt": "c"}'], "d.jsonl"),
    ],
)
def test_problems_that_cannot_be_read_are_named(policy: Path, tmp_path: Path, rows: list[str], said: str) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("\n".join(rows) + "\n")
    assert said in refused("rloo", policy, tmp_path / "o", mixture=[], data=data)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"rewards": [{"verifier": "exact", "process": True}]}, "rewards.0"),
        ({"rewards": [{"verifier": "reward-model", "params": {"model": "b"}}], "reward_models": {"a": "none"}}, "none"),
        ({"judge": "none"}, "none"),
        ({"rewards": [{"verifier": "code"}]}, "rewards.0: the verifier 'code' runs what samples say; allow_code: true"),
        (
            {
                "rewards": [{"verifier": "reward-model", "params": {"model": "far"}}],
                "reward_models": {"far": "http://127.0.0.1:9"},
            },
            "reward_models.far: http://127.0.0.1:9: reward model 'far': Connection error",
        ),
        (
            {
                "rewards": [{"verifier": "reward-model", "process": True, "params": {"model": "far"}}],
                "reward_models": {"far": "process+http://127.0.0.1:9#format=trl"},
            },
            "reward_models.far: process+http://127.0.0.1:9#format=trl: reward model 'far': Connection error",
        ),
    ],
)
def test_rewards_that_cannot_judge_are_named(policy: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused("ppo", policy, tmp_path / "o", mixture=WORDS, **changes)


def test_programs_are_judged_where_the_config_allows_it(policy: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    row = {"prompt": "Add.", "answer": "x", "tests": ["assert True"]}
    data.write_text(json.dumps(row) + "\n")
    changes = {"mixture": [], "data": data, "rewards": [{"verifier": "code"}], "steps": 1}
    made = config(GrpoConfig, policy, tmp_path / "o", allow_code=True, **changes)
    if asyncio.run(Sandbox().probe()):
        with pytest.raises(SetupError, match="allow_code: programs cannot be limited"):
            run("grpo", made)
        return
    metrics = run("grpo", made)["metrics"]
    assert 0 <= metrics["reward_code"] <= 1 and metrics["unjudged"] == 0


def test_no_folder_and_too_little_room(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelLoadError, match="no checkpoint folder"):
        run("grpo", config(GrpoConfig, tmp_path / "none", tmp_path / "o"))
    with monkeypatch.context() as patched:
        patched.setattr(_preflight, "available", lambda: (10**6, "here"))
        assert "too little; lower micro_tokens" in refused("online-dpo", policy, tmp_path / "o")
    tiny = shutil._ntuple_diskusage(10, 10, 10**4)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: tiny)
    assert "too little for a checkpoint" in refused("grpo", policy, tmp_path / "o")


def test_a_file_in_the_way_of_the_folder(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    for out in (tmp_path / "f", tmp_path / "f" / "o"):
        with pytest.raises(SetupError, match=r"out: .*f is a file"):
            run("grpo", config(GrpoConfig, policy, out))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"clip": [-0.1, 0.2]}, "clip"),
        ({"clip": [0.2, -0.1]}, "clip"),
        ({"clip": [1.0, 0.2]}, "clip"),
        ({"clip": [0.2]}, "clip"),
        ({"rate": float("inf")}, "rate"),
        ({"temperature": 0.0}, "temperature"),
        ({"kl": float("nan")}, "kl"),
    ],
)
def test_numbers_out_of_range_are_named(policy: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    for method in ("grpo", "rloo", "ppo"):
        with pytest.raises(ValidationError, match=said):
            config(trainers.get(method).config, policy, tmp_path, **changes)


def test_what_needs_more_memory(policy: Path, tmp_path: Path) -> None:
    size = _memory.model_size(policy)

    def need(kind: Any = GrpoConfig, judge: Any = None, of: Any = size, **changes: Any) -> float:
        return _memory.online_need(config(kind, policy, tmp_path, **changes), of, judge).total(2048)

    plain = need()
    assert min(need(PpoConfig), need(samples=64), need(judge=size), need(kl=0.1)) > plain
    assert need(peft="lora") < need(peft="lora", checkpointing=False, kl=0.0) + 1 <= need(peft="lora", kl=0.1) + 1
    assert max(need(peft="lora"), need(precision="bf16")) < plain
    deep = replace(size, layers=4 * size.layers, cache=4 * size.cache)
    assert need(of=deep, checkpointing=True) < need(of=deep)  # of two layers nothing is saved


def test_a_pass_fits_itself_to_the_memory() -> None:
    need = _memory.Need(fixed=2e9, token=1e6)
    chosen = [need.tokens(free) for free in (1e9, 3.5e9, 5e9, 1e12)]
    assert chosen == [256, 256, 1024, 2048]
    assert need.tokens(1e12, on_gpu=True) == 65536
    assert need.total(need.tokens(5e9)) <= 0.7 * 5e9


def test_what_a_run_began_with_it_goes_on_with(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(GrpoConfig, policy, tmp_path, micro_tokens="auto")
    need = _memory.Need(fixed=0, token=1e6)
    assert _memory.fit(made, need) == 2048
    _memory.keep_fit(made, 2048)
    monkeypatch.setattr(_memory, "available", lambda: (10**9, "here"))
    assert _memory.fit(made, need) == 2048
    assert _memory.fit(config(GrpoConfig, policy, tmp_path / "o", micro_tokens="auto"), need) == 512
    assert _memory.fit(config(GrpoConfig, policy, tmp_path, micro_tokens=77), need) == 77


def test_faults_are_found_without_torch(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "x"}\n')
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from reason_engine.errors import SetupError\n"
        "from reason_engine.training.run import run\n"
        "from reason_engine.training.online.grpo import GrpoConfig\n"
        "made = GrpoConfig(out=Path(sys.argv[1]) / 'o', model=Path(sys.argv[2]), data=Path(sys.argv[1]) / 'd.jsonl',\n"
        "                  rewards=[{'verifier': 'exact'}], steps=1)\n"
        "try: run('grpo', made)\n"
        "except SetupError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(policy)], capture_output=True, text=True, check=True
    )
    assert "d.jsonl" in done.stdout
