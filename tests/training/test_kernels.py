"""What a pass is made of, against the plain form of it: values and gradients."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.models import write_model

torch = pytest.importorskip("torch")
needs_peft = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('peft')", reason="extra train")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_of_the_vocabulary_are_the_whole(monkeypatch: pytest.MonkeyPatch, learns: bool, bias: bool) -> None:
    from reason_engine.training.kernels import logprobs

    monkeypatch.setattr(logprobs, "CHUNK", 16 * 50)
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=bias).requires_grad_(learns)
    targets, shares = torch.randint(0, 50, (70,)), torch.randn(70)
    found: list[Any] = []
    for ours in (True, False):
        states = torch.randn(70, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        head.zero_grad()
        if ours:
            values, entropy = logprobs.token_logprobs(head, states, targets, "fp32", 0.7, entropy=True)
        else:
            every = (head(states) / 0.7).log_softmax(-1)
            values, entropy = every.gather(1, targets[:, None])[:, 0], -(every.exp() * every).sum(-1).detach()
        (values * shares).sum().backward()
        grads = [states.grad, *(p.grad for p in head.parameters() if learns)]
        found.append((values.detach(), entropy, [one.clone() for one in grads]))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_a_head_with_an_adapter_is_gone_over_in_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from reason_engine.training.kernels import logprobs

    class Head(torch.nn.Linear):
        pass

    monkeypatch.setattr(logprobs, "CHUNK", 16 * 50)
    plain, other = torch.nn.Linear(8, 50), Head(8, 50)
    other.load_state_dict(plain.state_dict())
    states, targets = torch.randn(40, 8, requires_grad=True), torch.randint(0, 50, (40,))
    one, two = (logprobs.token_logprobs(head, states, targets, "fp32", entropy=True) for head in (plain, other))
    torch.testing.assert_close(one[0], two[0])
    torch.testing.assert_close(logprobs.token_logprobs(plain, states, targets, "fp32")[1], torch.zeros(40))


def test_the_largest_tensor_is_a_chunk() -> None:
    """Of a vocabulary like that of a real model nothing as large as all logits is made."""
    from reason_engine.training.kernels import logprobs

    count, vocabulary = 2000, 60_000
    head, states = torch.nn.Linear(4, vocabulary, bias=False), torch.randn(count, 4, requires_grad=True)
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            sizes.append(made.numel() if isinstance(made, torch.Tensor) else 0)
            return made

    with Watch():
        logprobs.token_logprobs(head, states, torch.zeros(count, dtype=torch.long), "fp32")[0].sum().backward()
    assert max(sizes) <= logprobs.CHUNK < count * vocabulary / 4


@pytest.mark.parametrize("rows", [[(5, 6, 7)], [(5, 6, 7), (9,), tuple(range(1, 40))]])
def test_packed_rows_are_read_as_if_alone(base: Path, rows: list[tuple[int, ...]]) -> None:
    from reason_engine.training.common.models import load_model
    from reason_engine.training.kernels.packing import PackedBody

    model, _ = load_model(base)
    plain = deepcopy(model)
    body = PackedBody(model)
    assert body.packs
    found: list[Any] = []
    for one in (
        body.rows(rows, "cpu"),
        torch.cat([plain.model(torch.tensor([row])).last_hidden_state[0] for row in rows]),
    ):
        one.pow(2).sum().backward()
        found.append(one.detach())
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(model.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-3)


def test_a_model_that_does_not_pass_the_layout_on_reads_padded_rows(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reason_engine.training.common.models import load_model
    from reason_engine.training.kernels import packing

    model, _ = load_model(base)
    rows = [(5, 6, 7), (9, 8), (1, 2, 3, 4, 5)]
    packed = packing.PackedBody(deepcopy(model)).rows(rows, "cpu").detach()
    after = packing.PackedBody(deepcopy(model)).after(rows, [(3, 4), (7,), (1, 1, 1)], "cpu").detach()
    real = packing.attend
    monkeypatch.setattr(packing, "attend", lambda *given, layout=None, **named: real(*given, **named))
    own = model.config._attn_implementation
    body = packing.PackedBody(model)
    assert not body.packs and model.config._attn_implementation == own
    torch.testing.assert_close(body.rows(rows, "cpu").detach(), packed, atol=1e-4, rtol=1e-4)
    found = body.after(rows, [(3, 4), (7,), (1, 1, 1)], "cpu").detach()
    torch.testing.assert_close(found, after, atol=1e-4, rtol=1e-4)


@needs_peft
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fused_layers_are_the_librarys(base: Path, precision: str) -> None:
    import peft

    from reason_engine.training.common.models import load_model
    from reason_engine.training.kernels.fused import fuse

    model, _ = load_model(base)
    peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    plain = deepcopy(model)
    fuse(model)
    copied = deepcopy(model)
    assert copied.model.layers[0].mlp.forward.__self__ is copied.model.layers[0].mlp
    ids = torch.arange(3, 30)[None]
    found: list[Any] = []
    for one in (model, plain):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            states = one.model(ids).last_hidden_state
        states.float().pow(2).mean().backward()
        found.append((states.detach(), [p.grad for p in one.parameters() if p.grad is not None]))
    assert len(found[0][1]) == len(found[1][1]) > 0
    close = {"atol": 1e-4, "rtol": 1e-3} if precision == "fp32" else {"atol": 0.1, "rtol": 0.1}
    torch.testing.assert_close(found[0], found[1], **close)
