"""A hundred ways out and then some, one after the other, under both kinds of limits. `make test` runs them
where CI=true; a few of each family are in test_code.py."""

from __future__ import annotations

import pytest

from tests.verifiers.escapes import ABSOLUTES, BOTH, FORGERIES, PROGRAMS
from tests.verifiers.sandboxed import attempt, needs_limits

pytestmark = [pytest.mark.escapes, needs_limits]


def test_there_are_a_hundred() -> None:
    assert len(set(PROGRAMS.values())) >= 100


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "spaces") for name in PROGRAMS), *((name, "plain") for name in PROGRAMS if name.startswith(BOTH))],
)
async def test_no_way_out(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await attempt(PROGRAMS[name], mode, monkeypatch)


@pytest.mark.parametrize("name", FORGERIES)
async def test_no_forged_verdict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await attempt(FORGERIES[name], "spaces", monkeypatch, check="assert f(2) == 4")


@pytest.mark.parametrize("name", ABSOLUTES)
async def test_no_forged_measure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = "assert abs(f(2) - 4) < 1e-6 and all([isinstance(f(2), int)])"
    await attempt(ABSOLUTES[name], "spaces", monkeypatch, check=check)
