"""The written-out decoder computes what the model's own does; compiling itself is too slow for a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reason_engine.errors import SetupError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch.compile's own


@pytest.fixture
def model() -> Iterator[Any]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rope_theta=1e4, tie_word_embeddings=True,
    )  # fmt: skip
    made = Qwen3ForCausalLM(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.compiler.set_stance("force_eager"):
        yield made


def test_states_and_gradients_are_the_models_own(model: Any) -> None:
    from reason_engine.training.common.forward import body_of

    ids_BT = torch.randint(0, 320, (3, 17))
    found: list[tuple[Any, list[Any]]] = []
    for compiled in (False, True):
        model.zero_grad()
        hidden_BTD = body_of(model, compiled)(ids_BT)
        hidden_BTD.pow(2).sum().backward()
        found.append((hidden_BTD.detach(), [p.grad.clone() for p in model.model.parameters()]))
    (own, own_grads), (other, other_grads) = found
    torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)
    for one, two in zip(own_grads, other_grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-2, rtol=1e-3)


def test_later_tokens_change_nothing(model: Any) -> None:
    from reason_engine.training.common.forward import body_of

    ids_BT = torch.randint(0, 320, (2, 20))
    changed = ids_BT.clone()
    changed[:, 12:] = 5
    body = body_of(model, True)
    assert torch.equal(body(ids_BT)[:, :12], body(changed)[:, :12])


def test_a_wrong_compiler_is_found(model: Any) -> None:
    from reason_engine.training.common import forward as _forward

    body = _forward.CompiledBody(model)
    body._cos, body._sin = body._sin, body._cos
    with pytest.raises(SetupError, match="compile: false"):
        body.check("fp32")


def test_only_qwen3_is_compiled(model: Any) -> None:
    from reason_engine.training.common.forward import body_of

    model.config.model_type = "llama"
    with pytest.raises(SetupError, match="llama"):
        body_of(model, True)
