"""The public names are those listed, each can be had, and having none of them costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reason_engine

NAMES = [
    "Answer",
    "Engine",
    "Limits",
    "Message",
    "Outcome",
    "Problem",
    "Profile",
    "ReasonError",
    "Sampling",
    "Settings",
    "Strategy",
    "Verifier",
    "load_settings",
    "open_engine",
    "read_profile",
    "solve",
    "solve_sync",
]


def test_the_public_names_are_exactly_these() -> None:
    assert reason_engine.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(reason_engine, name)
    assert value.__name__ == name
    assert value.__module__.startswith("reason_engine.")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'solv'"):
        _ = reason_engine.solv  # pyright: ignore[reportAttributeAccessIssue]


def test_dir_lists_the_public_names() -> None:
    assert set(NAMES) <= set(dir(reason_engine))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, reason_engine; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "vllm", "transformers", "openai", "pydantic", "fastapi", "numpy"} & set(out)
