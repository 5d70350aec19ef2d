"""Texts as vectors by the served model itself: the mean of its hidden states over a text's tokens, of length 1.

    e = m / |m|,  m = 1/T sum_t h_t          h_t the normalised state after the last layer

Pooling as in Sentence-BERT (Reimers and Gurevych 2019, section 3, MEAN), without the training for it that follows
there: any decoder gives these vectors, but states of causal attention know only what stands before them. A model that
was trained to embed does better; it is served by an endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Mean:
    """Reads a text whole: states that are in the prefix cache as keys and values only are computed again."""

    decoder: Decoder
    own: ClassVar[bool] = False

    def kept_from(self, places: Sequence[int], begin: int) -> int:
        """A text is read from its beginning."""
        return 0

    def read(
        self, hidden_NH: Tensor, ids: Sequence[int], places: Sequence[int], begin: int
    ) -> tuple[float, ...]:
        """The text's vector, (H); the places do not matter."""
        mean = self.decoder.states(hidden_NH).float().mean(0)
        return tuple(F.normalize(mean, dim=0).tolist())
