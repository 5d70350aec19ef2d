"""Whether two answers mean the same: cheap rules, then algebra in a worker process. Part of `answers`."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from reason_engine.answers.kind import AnswerKind
from reason_engine.answers.normalise import comparable, normalise
from reason_engine.answers.values.number import rational
from reason_engine.answers.values.plain import LIMIT
from reason_engine.answers.values.words import words


class Equality:
    """Whether two answers mean the same, by math-verify in a process of its own.

    Strings equal once normalised, plain numbers and plain words never reach the process. It starts at first
    need, and a comparison that takes over `seconds` kills it and counts as "not the same". A pair keeps its first
    verdict. An object belongs to one event loop; `close` it there.
    """

    def __init__(self, seconds: float = 2.0, start_seconds: float = 60.0) -> None:
        self.seconds, self.start_seconds = seconds, start_seconds
        self.started = 0
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._known: dict[tuple[str, str], bool] = {}
        self._slow = Counter[str]()

    async def same(self, a: str, b: str, kind: AnswerKind | None = None) -> bool:
        """Whether `a` and `b` are the same answer of a kind, of no kind by any means. Never raises on what they
        hold."""
        a, b = sorted((normalise(a, kind), normalise(b, kind)))
        if a == b or kind in _BY_TEXT:
            return a == b or comparable(a, kind) == comparable(b, kind)
        known = _same_cheaply(a, b)
        if known is None and max(self._slow[a], self._slow[b]) < 2:
            if (a, b) not in self._known:
                async with self._turn:
                    verdict = await self._ask(a, b)
                if len(self._known) >= 10_000:
                    self._known.clear()
                self._known[a, b] = verdict
            known = self._known[a, b]
        return bool(known)

    async def cluster(self, values: Sequence[str], kind: AnswerKind | None = None) -> list[str]:
        """For each value the first of `values` that it equals, normalised by the kind. The order given decides."""
        given, head_of = [normalise(value, kind) for value in values], dict[str, str]()
        if kind in _BY_TEXT:
            return [head_of.setdefault(comparable(value, kind), value) for value in given]
        for value in dict.fromkeys(given):
            for head in dict.fromkeys((*head_of.values(), value)):  # a value equals itself at the latest
                if await self.same(head, value, kind):
                    head_of[value] = head
                    break
        return [head_of[value] for value in given]

    async def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process:
            if process.stdin:
                process.stdin.close()
            if process.returncode is None:
                process.kill()
            await process.communicate()  # reads to the end, so that no transport is left open

    async def _ask(self, a: str, b: str) -> bool:
        answered = False
        try:
            process = await self._running()
            assert process.stdin is not None
            process.stdin.write(json.dumps([a, b]).encode() + b"\n")
            line = await _line(process, self.seconds)
            answered = True
            return line == b"true\n"
        except TimeoutError:
            self._slow.update((a, b))
            return False
        except (OSError, EOFError):
            return False
        finally:
            if not answered:  # a late answer must never be read as the next one's
                await self.close()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            await self.close()
            worker = Path(__file__).with_name("equality_worker.py")
            pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", str(worker), stdin=pipe, stdout=pipe, stderr=null
            )
            self.started += 1
            await _line(self._process, self.start_seconds)
        return self._process


async def _line(process: asyncio.subprocess.Process, seconds: float) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        line = await process.stdout.readline()
    if not line:
        raise EOFError("the comparing process ended")
    return line


def _same_cheaply(a: str, b: str) -> bool | None:
    """The verdict where it needs no algebra, else None. Takes normalised values."""
    if a == b:
        return True
    if max(len(a), len(b)) > LIMIT or not a or not b:
        return False
    x, y = rational(a), rational(b)
    if x is not None and y is not None:
        return x == y
    (x, unit_x), (y, unit_y) = _quantity(a), _quantity(b)
    if x is not None and y is not None:  # "18 apples" is "18", and is not "18 pears"
        return x == y and (not unit_x or not unit_y or unit_x == unit_y)
    if _prose(a) or _prose(b):
        return words(a) == words(b)
    if len(a) == len(b) == 1 and (a + b).isalpha():  # choices, or the names of two unknowns
        return False
    named = (len(a) == 1 and a.isalpha() and y is not None) or (len(b) == 1 and b.isalpha() and x is not None)
    return False if named else None


def _quantity(value: str) -> tuple[Fraction | None, str]:
    match = _UNIT.fullmatch(value)
    return (rational(match[1]), match[2].casefold()) if match else (rational(value), "")


def _prose(value: str) -> bool:
    """Words rather than mathematics; sympy takes them for products of letters: "dear" = "read"."""
    return any(word.lower() not in _FUNCTIONS for word in _WORD.findall(value))


_BY_TEXT = frozenset[AnswerKind | None](("choice", "yes-no", "words", "code", "json", "tool", "free"))
_UNIT = re.compile(r"([-+]?[\d./%]+) ((?:[A-Za-z]{2,} ?)+)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_NAMES = "sin cos tan cot sec csc log exp sqrt frac arcsin arccos arctan sinh cosh tanh min max mod"
_FUNCTIONS = frozenset(_NAMES.split())
