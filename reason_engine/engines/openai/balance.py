"""Which endpoint takes the next request: the one that knows its beginning, unless it has more than its share; else the
least loaded.

An endpoint keeps what it has read of a prompt, so requests of one search, and prompts that begin alike, go where the
last one went. The share is that of consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018,
section 1: no server holds more than 1 + ε times the mean, what is over goes on to the next). Loads are samples, not
requests. Among the least loaded the beginning's rank decides (rendezvous hashing, Thaler and Ravishankar 1998), so that
several servers in front of the same endpoints agree without speaking to one another.

Departures: the place of a beginning is remembered, not hashed, since a beginning that nobody has read goes to the least
loaded; the next one is the least loaded too.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Collection, Sequence

from reason_engine.engines.openai.upstream import Upstream
from reason_engine.types import GenerateRequest

EPSILON = 0.25
BEGINNING = 1024
"""Characters, or bytes of ids, by which a beginning is known: longer than most system prompts' first paragraph."""
REMEMBERED = 4096


class Balance:
    """Chooses among endpoints and remembers who has read what."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams
        self._places: OrderedDict[str, Upstream] = OrderedDict()

    def pick(self, request: GenerateRequest, width: int, avoid: Collection[Upstream] = ()) -> Upstream:
        """The endpoint for so many samples of a request: one that may be asked now and is not to be avoided, where
        there is any; else one that is only busy; else any, the first to end its rest."""
        left = [one for one in self._upstreams if one not in avoid] or list(self._upstreams)
        usable = [one for one in left if one.usable]
        if not usable:
            return min(left, key=lambda one: (not one.busy, one.until))
        keys = keys_of(request)
        chosen = self._place(keys, usable, width) or min(usable, key=lambda one: (one.running, rank(keys[-1], one.url)))
        for key in keys:
            self._places[key] = chosen
            self._places.move_to_end(key)
        while len(self._places) > REMEMBERED:
            self._places.popitem(last=False)
        return chosen

    def _place(self, keys: Sequence[str], usable: Sequence[Upstream], width: int) -> Upstream | None:
        """The endpoint that has read the beginning, if it has room within its share."""
        known = next((self._places[key] for key in keys if key in self._places), None)
        if known is None or known not in usable:
            return None
        share = math.ceil((1 + EPSILON) * (sum(one.running for one in usable) + width) / len(usable))
        return known if known.running + width <= max(width, share) else None


def keys_of(request: GenerateRequest) -> list[str]:
    """By what the beginning of a request is known: its search, where it belongs to one, and the text it begins with."""
    prompt = request.prompt
    if isinstance(prompt, str):
        begins = prompt[:BEGINNING].encode("utf-8", "surrogatepass")
    else:
        begins = b"".join(number.to_bytes(4, "little", signed=True) for number in prompt[: BEGINNING // 4])
    text = "text " + hashlib.blake2b(begins, digest_size=16).hexdigest()
    return [f"search {request.search}", text] if request.search else [text]


def rank(key: str, url: str) -> bytes:
    return hashlib.blake2b(f"{key} {url}".encode(), digest_size=8).digest()
