"""The worker process behind `answers.Equality`: math-verify on one pair of strings a line.

Run as a file by its path, so that it imports nothing of this package. Protocol, one JSON value a line: it
writes `"ready"` once its imports are done, then answers each `[a, b]` with `true` or `false`. It keeps no time
limit of its own (math-verify's uses signals); the parent kills it when a comparison takes too long.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache

MEMORY = 4 << 30


def main() -> None:
    """Serve until standard input ends."""
    _limit_memory()
    from math_verify import parse, verify  # pyright: ignore[reportMissingTypeStubs]

    @lru_cache(maxsize=1024)
    def read(value: str) -> object:
        return parse(f"${value}$", parsing_timeout=None)  # pyright: ignore

    def same(a: str, b: str) -> bool:
        left, right = read(a), read(b)
        return verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None)  # pyright: ignore

    out = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        a, b = json.loads(line)
        try:
            verdict = bool(same(a, b))
        except Exception:  # boundary: whatever failed inside sympy, the two were not shown to be equal
            verdict = False
        print(json.dumps(verdict), file=out, flush=True)


def _limit_memory() -> None:
    """Keep a runaway power from taking the machine's memory, where the platform can."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    if soft == resource.RLIM_INFINITY or soft > bound:
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


if __name__ == "__main__":
    main()
