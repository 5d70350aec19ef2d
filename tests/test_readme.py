"""The README is true: its code runs as written, its tables follow from the registry, its commands exist.

`python -m tests.test_readme` rewrites the table of strategies, with `--examples` also the answer and the trace.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from reason_engine.answers import find
from reason_engine.strategies import Strategy, strategies
from reason_engine.verifiers.countdown import Countdown
from tests.cli.conftest import Running, serve, stop

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The shell commands, each on its own, continued lines joined."""
    found: list[str] = []
    for block in blocks("bash"):
        open_quote = ""
        for line in block.splitlines():
            open_quote += line + "\n"
            if open_quote.count("'") % 2 == 0:
                found.append(open_quote.strip())
                open_quote = ""
        assert not open_quote, open_quote
    return found


def strategy_table() -> str:
    """The strategies with their own options, from the registry."""
    lines = ["| strategy | what it does | its options | paper |", "|---|---|---|---|"]
    for name in strategies:
        kind = strategies.get(name)
        own = [field for field in kind.model_fields if field not in Strategy.model_fields]
        paper = re.sub(r"^arXiv:(\S+)$", r"[\1](https://arxiv.org/abs/\1)", kind.paper)
        lines.append(f"| `{name}` | {kind.summary} | {' '.join(f'`{field}`' for field in own)} | {paper} |")
    common = ", ".join(f"`{field}`" for field in Strategy.model_fields)
    return "\n".join([*lines, "", f"Every strategy also takes {common}."])


def between(name: str) -> str:
    text = README.read_text("utf-8")
    return text.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0].strip()


def structure(value: object) -> object:
    """The names of a JSON value's fields and the types of its leaves."""
    if isinstance(value, dict):
        return {key: structure(item) for key, item in value.items()}
    if isinstance(value, list):
        return [structure(item) for item in value]
    return type(value).__name__


def excerpt(answer: dict[str, Any]) -> dict[str, Any]:
    """What the README shows of an answer."""
    (choice,) = answer["choices"]
    return {
        "model": answer["model"],
        "choices": [
            {
                "message": {name: choice["message"][name] for name in ("role", "content")},
                "finish_reason": choice["finish_reason"],
            }
        ],
        "usage": {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
        "reason": {name: answer["reason"][name] for name in ("answer", "confidence", "samples", "stopped", "seconds")},
    }


def ask(url: str) -> dict[str, Any]:
    """The server's answer to the README's curl line."""
    (line,) = (command for command in commands() if command.startswith("curl "))
    _, address, _, header, _, body = shlex.split(line)
    request = urllib.request.Request(address.replace(ADDRESS, url), body.encode(), dict([header.split(": ")]))
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def solves_the_puzzle(content: str) -> bool:
    """Whether this is a right answer to the README's puzzle."""
    answer = find(content)
    return answer is not None and Countdown(numbers=(4, 5, 6, 10), target=24).solved(answer)


def test_a_wrong_answer_to_the_puzzle_is_seen() -> None:
    assert solves_the_puzzle("Answer: (10 - 4) * (5 - 1) = 24") is False
    assert solves_the_puzzle("Answer: 4 * 5 + 10 - 6 = 24") is True
    assert solves_the_puzzle("Answer: 24") is False


@pytest.fixture(scope="module")
def nano() -> Iterator[Running]:
    """The server of `make serve`."""
    running = serve()
    yield running
    assert stop(running) == 0


def test_the_strategy_table_follows_from_the_registry() -> None:
    assert between("strategies") == strategy_table()


def test_the_python_blocks_run(nano: Running) -> None:
    """One after the other in one namespace, as a reader would paste them."""
    said = io.StringIO()
    names: dict[str, object] = {"__name__": "readme"}
    with redirect_stdout(said):
        for block in blocks("python"):
            exec(compile(block.replace(ADDRESS, nano.url), "README.md", "exec"), names)
    names["client"].close()  # pyright: ignore[reportAttributeAccessIssue]
    first = said.getvalue().splitlines()[0]
    assert solves_the_puzzle(first), first
    assert "Answer: 14" in said.getvalue()
    assert said.getvalue().splitlines()[-1].startswith("14 ")


def test_the_curl_line_runs(nano: Running) -> None:
    """The answer shown is the answer given; another processor may find another right one."""
    answer = ask(nano.url)
    content = answer["choices"][0]["message"]["content"]
    assert solves_the_puzzle(content), content
    assert answer["usage"]["completion_tokens"] <= 4000
    shown = json.loads(between("answer").removeprefix("```json\n").removesuffix("```"))
    assert solves_the_puzzle(shown["choices"][0]["message"]["content"])
    assert structure(shown) == structure(excerpt(answer))
    assert shown["usage"]["completion_tokens"] <= 4000
    assert shown["reason"]["answer"] in shown["choices"][0]["message"]["content"]
    for place in (("model",), ("reason", "stopped"), ("usage", "prompt_tokens")):
        said, given = shown, answer
        for name in place:
            said, given = said[name], given[name]
        assert said == given, place


def test_the_first_screen_has_the_commands_a_request_and_its_answer() -> None:
    first = "\n".join(README.read_text("utf-8").splitlines()[:42])
    for part in ("make serve\n", "make test\n", "\ncurl ", "<!-- /answer -->"):
        assert part in first, part


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("make ")])
def test_the_make_targets_exist(command: str) -> None:
    ran = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("reason ")])
def test_the_commands_run(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[:2] == ["serve", "Qwen/Qwen3-8B"]:
        words = ["serve", "--help"]
    elif words[0] == "doctor":
        words.append("--json")
    ran = subprocess.run(
        [sys.executable, "-m", "reason_engine.cli.main", *words], input="", capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr


def test_the_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = set(re.findall(r"reason-engine\[([\w-]+)\]", README.read_text("utf-8")))
    assert named and named <= project["optional-dependencies"].keys()


def test_the_trace_is_a_tree() -> None:
    tree = between("trace")
    assert tree.startswith("```text\n$ reason solve ") and "└──" in tree


def test_every_command_of_the_shell_blocks_is_tested() -> None:
    known = ("make ", "curl ", "reason ", "pip install ")
    assert [command for command in commands() if not command.startswith(known)] == []


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text("utf-8")):
        assert (ROOT / target).exists(), target


TRACE = [
    "reason",
    "solve",
    "Use the numbers 4 5 6 10 and + - * / to make 24.",
    "--strategy",
    "tree-of-thoughts",
    "--trace",
]


def trace() -> str:
    """What the command prints, as a reader would see it."""
    words = [sys.executable, "-m", "reason_engine.cli.main", *TRACE[1:]]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    return f"```text\n$ {shlex.join(TRACE)}\n{ran.stdout}{ran.stderr}```"


def answer() -> str:
    """What the server of `make serve` answers to the curl line, shortened, a line a field."""
    running = serve()
    try:
        ask(running.url)  # the first request of a server also starts what compares answers
        fields = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in excerpt(ask(running.url)).items()]
    finally:
        stop(running)
    return "\n".join(["```json", "{", ",\n".join(fields), "}", "```"])


def rewrite(*, examples: bool) -> None:
    """Put the table of strategies in; with `examples` also the answer and the trace, which the model at hand makes."""
    text, parts = README.read_text("utf-8"), {"strategies": strategy_table()}
    if examples:
        parts |= {"answer": answer(), "trace": trace()}
    for name, content in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}{content}\n{end}{rest.split(end)[1]}"
    README.write_text(text, "utf-8")


if __name__ == "__main__":
    rewrite(examples="--examples" in sys.argv)
