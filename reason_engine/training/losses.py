"""How well a checkpoint predicts the answers of a file: -log p a token, each weighted as in training."""

from __future__ import annotations

from pathlib import Path

from reason_engine.data.readers import read_rows
from reason_engine.data.rows import Conversation, Text
from reason_engine.errors import SetupError


def answer_loss_of(
    model: Path, rows: Path, *, max_length: int = 1024, micro_tokens: int = 4096, threads: int | None = None
) -> float:
    """The mean over all tokens of the answers, in fp32. Raises SetupError, ModelLoadError."""
    read = list(read_rows(rows, Conversation, Text))
    import torch

    from reason_engine.training._encode import Encoder, micro_batches
    from reason_engine.training._forward import answer_loss, body_of
    from reason_engine.training._models import load_model

    torch.set_num_threads(threads or torch.get_num_threads())
    loaded, tokenizer = load_model(model)
    loaded.eval()
    items = Encoder(tokenizer, max_length).encode(read)
    body, head = body_of(loaded, False), loaded.get_output_embeddings()
    total = sum(sum(one.weights[1:]) for one in items)
    if not total:
        raise SetupError(f"{rows}: no row has an answer with a weight above 0")
    with torch.no_grad():
        return (
            sum(float(answer_loss(body, head, group, "fp32")) for group in micro_batches(items, micro_tokens))
            / total
        )
