"""The program in an answer. Part of `answers`.

A prefilled fence ends the program that the text begins with; else it is the last Python block that parses and defines
the entry point, else the longest that parses, else text that is nothing but a program. Where its names are missing,
the imports and helpers of earlier blocks come before it. Blocks in other languages are taken as they stand.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from textwrap import dedent


def found_program(text: str, entry_point: str | None = None, *, cut: bool = False) -> str | None:
    """The program that an answer gives; None where nothing in it parses as one. `cut`: a limit ended the text, so that
    only fences that are closed count."""
    opened = [(match[1].casefold(), dedent(match[2]).strip("\n")) for match in _FENCE.finditer(text)]
    head, fence, _ = text.partition("```")
    if fence and _is_program(head):  # the fence was opened by the prompt
        opened.insert(0, ("", head.strip("\n")))
    parsed = [body for tag, body in opened if tag in _PYTHON and body.strip() and _parse(body) is not None]
    defining = [body for body in parsed if entry_point and entry_point in _defined(body)]
    if parsed:
        program = defining[-1] if defining else max(reversed(parsed), key=len)
        return _with_helpers(program, parsed[: parsed.index(program)])
    others = [body for tag, body in opened if tag not in _PYTHON | _OUTPUTS and body.strip()]
    if others:
        return others[-1]
    return None if opened or cut else _unfenced(text)


def canonical_program(code: str) -> str:
    """A program's syntax tree as text, so that layout and comments do not tell two apart; other code with its spaces
    made one."""
    tree = _parse(code)
    if tree is None:
        return " ".join(code.split())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _unfenced(text: str) -> str | None:
    """The lines from the first that opens a definition or an import to the last with which they parse."""
    lines = text[:_LONGEST].splitlines()
    start = next((number for number, line in enumerate(lines) if _OPENS.match(line)), None)
    if start is None:
        return None
    for end in range(len(lines), max(start, len(lines) - _TRIES), -1):
        if _is_program(body := "\n".join(lines[start:end])):
            return body.strip("\n")
    return None


def _with_helpers(program: str, earlier: list[str]) -> str:
    """The program after those imports and definitions of earlier blocks that it lacks, and that they lack in turn."""
    needed = _missing(program)
    taken: list[str] = []
    for block in reversed(earlier):
        tree = _parse(block)
        for node in reversed(tree.body if tree else []):
            names = _names_of(node)
            if names & needed:
                source = ast.get_source_segment(block, node) or ""
                decorators = getattr(node, "decorator_list", [])
                taken.insert(0, "".join(f"@{ast.unparse(one)}\n" for one in decorators) + source)
                needed = (needed - names) | _missing(source)
    return "\n".join([*taken, program])


def _is_program(text: str) -> bool:
    tree = _parse(text)
    return tree is not None and any(isinstance(node, _STATEMENTS) for node in tree.body)


def _parse(code: str) -> ast.Module | None:
    if len(code) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defined(code: str) -> set[str]:
    tree = _parse(code)
    return {name for node in (tree.body if tree else []) for name in _names_of(node)}


def _names_of(node: ast.stmt) -> set[str]:
    """The names that a statement of a module binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _missing(code: str) -> set[str]:
    """The names that a program uses and nobody binds."""
    tree = _parse(code)
    if tree is None:
        return set()
    used, bound = set[str](), set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.stmt):
            bound |= _names_of(node)
    return used - bound


_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_PYTHON = frozenset(("", "python", "python3", "py", "python2"))
_OUTPUTS = frozenset(["output", "text", "plaintext", "console", "bash", "sh", "shell", "json", "yaml"])
_OPENS = re.compile(r"(?:async def|def|class) \w|(?:import|from) \w|@\w")
_STATEMENTS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_LONGEST, _TRIES = 50_000, 40
