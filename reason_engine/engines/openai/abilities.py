"""What an endpoint can do, as found at start, and how that is told."""

from __future__ import annotations

from dataclasses import dataclass

from reason_engine.engines.openai.wire.prefill import Prefill

Question = str
"""The name of a thing that is asked: `n`, `logprobs`, `ids`, `structured`, `prefill`."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """Powers of one endpoint. What could not be asked yet stands in `open` and is assumed as it is here."""

    most_samples: int | None = None
    """Most samples of one call; None: as many as asked for."""
    seeds: bool | None = None
    """The same seed draws the same text, in a call of several samples too; None: not known."""
    logprobs: int = 20
    """Most alternatives of a token; -1: not even the drawn token's own probability."""
    sends_ids: bool = False
    takes_ids: bool = False
    tokenizes: bool = False
    """Has a route that counts tokens."""
    structured: bool = True
    prefill: Prefill | None = None
    open: frozenset[Question] = frozenset()

    def report(self) -> dict[str, tuple[bool, str]]:
        """Every power: whether it is there, and in words."""
        most = self.most_samples
        logprobs = f"{self.logprobs} alternatives of a token" if self.logprobs > 0 else "of the drawn token only"
        ids = " and ".join(
            word for word, has in (("sent", self.sends_ids), ("taken as prompts", self.takes_ids)) if has
        )
        seeds = {None: "not known", True: "the same seed draws the same text", False: "do not repeat a text"}
        told = {
            "n": (most != 1, "any" if most is None else f"at most {most} samples of a call" if most > 1 else "1"),
            "seeds": (self.seeds is True, seeds[self.seeds]),
            "logprobs": (self.logprobs >= 0, logprobs if self.logprobs >= 0 else "none"),
            "token ids": (self.sends_ids and self.takes_ids, ids or "neither sent nor taken"),
            "tokenize": (self.tokenizes, "has a route for it" if self.tokenizes else "no route for it"),
            "structured": (self.structured, "JSON schemas" if self.structured else "no JSON schemas"),
            "begun answers": (self.prefill is not None, self.prefill or "not continued"),
        }
        if self.open:
            told["not asked yet"] = (False, ", ".join(sorted(self.open)))
        return told
