"""The values that a side may have, one for each reading.

People write the same signs with several meanings: 20 % as 1/5, as 20 of a unit, or of what stands before it (50 - 20 %);
`8 / 1/3` with 1/3 as one number; `6 / 2(3)` with 2(3) as one factor; `1 1/2` as a mixed number; `5!` as a factorial or
with an exclamation mark; a leading minus as a list's mark. An equation is right if it holds in one reading, and wrong
only if it holds in none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, product

from reason_engine.verifiers.process_rules.expression import Expression, Percent, Reading, Tight
from reason_engine.verifiers.process_rules.tokens import Token

MOST, READINGS = 100, 36
"""Tokens of a side, and readings, beyond which it is not read."""


def values(parts: Sequence[Token]) -> dict[Fraction, Reading]:
    """Every value with a reading that gives it; empty where the side is no arithmetic."""
    found: dict[Fraction, Reading] = {}
    if 0 < len(parts) <= MOST:
        for reading in islice(_readings(parts), READINGS):
            try:
                found.setdefault(Expression(parts, reading).value(), reading)
            except (ValueError, ZeroDivisionError):
                continue
    return found


def _readings(parts: Sequence[Token]) -> Iterator[Reading]:
    texts = {part.text for part in parts}
    glued = any(part.kind == "open" and part.glued for part in parts)
    percents: tuple[Percent, ...] = ("share", "unit", "relative") if "%" in texts else ("share",)
    tights: tuple[Tight, ...] = ("no", "divisor", "glued") if sum(p.text == "/" for p in parts) > 1 else ("no",)
    both, no = (False, True), (False,)
    yield from (
        Reading(*chosen)
        for chosen in product(
            percents,
            tights,
            both if glued else no,
            (True, False) if "⟦" in texts or "/" in texts else (True,),
            both if "!" in texts else no,
            both if parts[0].text == "-" else no,
        )
    )
