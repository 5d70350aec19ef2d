"""Elastic weight consolidation: F row by row, the penalty, and what holds an adapter's inner factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reason_engine.errors import SetupError
from tests.models import write_model
from tests.training.test_methods import lines, train
from tests.training.test_peft import needs_peft

torch = pytest.importorskip("torch")

from reason_engine.training.common.consolidation import Consolidation, Factor  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


def test_consolidation() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    idle = torch.nn.Parameter(torch.tensor([5.0]))
    rows = [torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])]
    held = Consolidation([("weight", weight), ("idle", idle)], 10.0, [(row * weight).sum() for row in rows])
    fisher = torch.tensor([2.0, 0.0, 4.0]) / (6 / 4)  # sums of squared gradients, of mean 1 over four weights
    with torch.no_grad():
        weight += torch.tensor([0.5, 0.5, -1.0])
        idle += 1
    weight.grad = torch.ones(3)
    penalty = held.add_gradients()
    step = torch.tensor([0.5, 0.5, -1.0])
    torch.testing.assert_close(weight.grad, 1 + 10 * fisher * step)
    assert idle.grad is not None and float(idle.grad) == 0
    assert penalty == pytest.approx(5 * float((fisher * step**2).sum()))
    with pytest.raises(SetupError, match="importance of 0"):
        Consolidation([("weight", weight)], 1.0, [(0 * weight).sum()])


def pulls(held: Consolidation, weight: Any) -> Any:
    """The gradient of the penalty one step away from the start, in every direction."""
    with torch.no_grad():
        weight += 1
    weight.grad = None
    held.add_gradients()
    return weight.grad


def test_rows_that_pull_a_weight_apart_do_not_free_it() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    rows = [torch.tensor([3.0, 1.0]), torch.tensor([-3.0, 1.0])]  # their mean has no gradient in the first weight
    held = Consolidation([("weight", weight)], 1.0, ((row * weight).sum() for row in rows))
    torch.testing.assert_close(pulls(held, weight), torch.tensor([9.0, 1.0]) / 5)


def test_a_row_counts_by_the_sum_of_its_tokens(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-log p(row), not its mean over the row's tokens."""
    from reason_engine.training.common import consolidation

    seen: list[float] = []

    class Watched(Consolidation):
        def __init__(self, trained: Any, strength: float, losses: Any, factors: Any = ()) -> None:
            def watched() -> Any:
                for loss in losses:
                    seen.append(loss.item())
                    yield loss

            super().__init__(trained, strength, watched(), factors)

    monkeypatch.setattr(consolidation, "Consolidation", Watched)
    old = [{"prompt": "Tell", "completion": said} for said in ("a b c d", "a b c d a b c d a b c d a b c d")]
    train("sft", base, tmp_path, ewc=1.0, old=lines(tmp_path / "old.jsonl", old), tokens=100)
    assert len(seen) == 2 and seen[1] > 2 * seen[0]


def test_the_inner_factor_is_judged_by_the_weight_behind_it() -> None:
    torch.manual_seed(0)
    frozen = torch.nn.Parameter(torch.randn(3, 4), requires_grad=False)
    inner, outer = torch.nn.Parameter(torch.randn(2, 4)), torch.nn.Parameter(torch.zeros(3, 2))
    inputs, outputs = torch.randn(5, 4), torch.randn(5, 3)

    def losses() -> Any:
        for x, y in zip(inputs, outputs, strict=True):
            yield (y * ((frozen + 0.5 * outer @ inner) @ x)).sum()

    before = inner.detach().clone()
    alone = Consolidation([("inner", inner), ("outer", outer)], 1.0, losses())
    assert float(pulls(alone, inner).abs().sum()) == 0  # it would be free
    with torch.no_grad():
        inner.copy_(before)
    held = Consolidation([("inner", inner), ("outer", outer)], 1.0, losses(), [Factor(inner, frozen, 0.5)])
    pairs = list(zip(inputs, outputs, strict=True))
    squared = torch.stack([torch.outer(y, x) ** 2 for x, y in pairs]).sum(0)
    expected = (0.25 * before.pow(2).mean() * squared.sum(0)).expand(2, 4)
    theirs = torch.stack([(0.5 * torch.outer(y, before @ x)) ** 2 for x, y in pairs]).sum(0)
    mean = (expected.sum() + theirs.sum()) / 14
    torch.testing.assert_close(pulls(held, inner), expected / mean)
    assert not frozen.requires_grad and frozen.grad is None


@needs_peft
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapters_inner_factor_moves_and_is_held(base: Path, tmp_path: Path, method: str) -> None:
    from safetensors.torch import load_file

    old = lines(tmp_path / "old.jsonl", [{"prompt": f"Tell {n}", "completion": f"old {n}"} for n in range(4)])

    def inner(name: str, **changes: Any) -> dict[str, Any]:
        train("sft", base, tmp_path / name, **{"peft": method, "adamw_rate": 0.01, **changes})
        file = tmp_path / name / "out" / "adapter" / "adapter_model.safetensors"
        return {key: tensor for key, tensor in load_file(file).items() if "lora_A" in key}

    start = inner("start", tokens=1, adamw_rate=1e-9)
    moved = {
        name: sum(float((tensor - start[key]).pow(2).sum()) for key, tensor in factors.items())
        for name, factors in {"free": inner("free"), "held": inner("held", ewc=1e4, old=old)}.items()
    }
    assert start and moved["free"] > 1e-3
    assert moved["held"] < 0.25 * moved["free"]
