"""Value queries, the judgement that a tree search asks for: `Can 4 4 10 make 24?` -> `yes` or `no`, exact.

States are what lines from a puzzle lead to, so that they look like those of a search; labels are balanced by drawing
the label first. States of four numbers are those that training may use.
"""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data._numbers import Number, State, moves, reachable, usable
from reason_engine.data._puzzles import countdown, game, show
from reason_engine.data.formats import Example

SMALL = 30  # half of the lines keep to results this small, as those do that a model proposes


@families.register("value")
class Value(BaseModel):
    """`sizes`: relative share of states by how many numbers they hold. `game`: share with the target 24."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    game: float = Field(0.75, ge=0, le=1)
    sizes: dict[int, float] = {1: 1, 2: 8, 3: 24, 4: 4}
    highest: int = Field(13, ge=4, le=25)
    weight: float = Field(8.0, gt=0)

    def example(self, rng: random.Random) -> Example:
        wanted = rng.random() < 0.5
        size = rng.choices(list(self.sizes), list(self.sizes.values()))[0]
        while True:
            state, target = self._draw(rng, size, wanted)
            if (target in reachable(state)) == wanted:
                break
        text = show(state if rng.random() < 0.8 else tuple(rng.sample(state, size)))
        return Example(f"Can {text} make {target}?", "yes" if wanted else "no", "value", self.weight)

    def _draw(self, rng: random.Random, size: int, wanted: bool) -> tuple[State, Number]:
        if rng.random() < self.game:
            if size == 4 and not wanted:
                state: State = (1,)
                while not usable(state) or len(state) < 4:
                    state = tuple(sorted(rng.randint(1, self.highest) for _ in range(4)))
                return state, 24
            state, target = game(rng, self.highest)
        else:
            state, target = countdown(rng, (4,), self.highest)
            if size == 4 and not wanted:
                return state, _near(rng, state, target)
        while len(state) > size:
            options = moves(state)
            good = [move for move in options if target in reachable(move[4])] if wanted else options
            plain = [move for move in good if isinstance(move[3], int)] or good or options
            small = [move for move in plain if move[3] <= SMALL] if rng.random() < 0.5 else ()
            state = rng.choice(small or plain)[4]
        return state, target


def _near(rng: random.Random, state: State, target: int) -> int:
    reach = reachable(state)
    near = [n for n in range(max(1, target - 30), target + 31) if n not in reach]
    return rng.choice(near) if near else target
