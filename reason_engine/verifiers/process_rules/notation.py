r"""LaTeX, typographic signs and Markdown as one plain notation, so that one reader of equations serves them all.

    \frac{3}{4} of $1{,}200 \approx 900  ->  ⟦(3)/(4)⟧ of 1200 ≈ 900

A fraction keeps brackets of its own: `2⟦(1)/(2)⟧` may be a mixed number. What has no plain form becomes OPAQUE: the
side of an equation in which it stands is not judged. Code, drawings and environments' names are taken out.
"""

from __future__ import annotations

import re

OPAQUE = "§"
"""Stands for a sign that is not read."""
MONEY = "¤"
"""Any currency's sign."""
LONGEST = 2_000
"""Characters of a line beyond which it is not read."""


def plain(text: str) -> str:
    """The text in plain notation; lines stay lines, except that one beginning with a relation joins the one before."""
    text = _BLOCKS.sub("\n", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _nested(text)
    for pattern, replacement in _LATER:
        text = pattern.sub(replacement, text)
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


def _nested(text: str) -> str:
    """Commands with arguments, innermost first."""
    for _ in range(8):
        before = text
        for pattern, replacement in _COMMANDS:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    return text


_LENGTHS = "cm|mm|km|m|in|ft|yd|inch|inches|feet|foot|yards?|meters?|units?|miles?"
_ARG = r"\s*\{([^{}]*)\}"
_BLOCKS = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)|```.*?(?:```|\Z)", re.DOTALL)
_RULES = tuple((re.compile(pattern), replacement) for pattern, replacement in (
    (r"\\\\(?:\[[^\]\n]{0,20}\])?|\\(?:begin|end)\{[^{}\n]{0,40}\}|\\\[|\\\]", "\n"),
    (r"\\[()]|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?|&", " "),
    (r",\\!|\{,\}", ","),
    (r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~|\u00a0|\u2009|\u202f", " "),
    (r"\\[{}]", OPAQUE),
    (r"\^\s*\{?\s*\\circ\s*\}?|°", ""),
    (r"\\(?:times|cdot|ast)(?![A-Za-z])|[\u00d7\u00b7\u2219\u22c5\u2217\u2715\u2716]", "*"),
    (r"\\div(?![A-Za-z])|\u00f7", "/"),
    (r"[\u2212\u2013]", "-"),
    (r"\\(?:approx|simeq|cong|sim)(?![A-Za-z])|[\u2248\u2243\u2245\u223c]|~=", "\u2248"),
    (r"\\(?:neq?|leq?|geq?|lt|gt|equiv|leqslant|geqslant)(?![A-Za-z])", " < "),
    (r"[\u2260\u2264\u2265\u2261]|[<>!:+*/-]=|==", " < "),
    (r"\\(?:to|implies|iff|(?:Long|long)?(?:R|r|Leftr|leftr)ightarrow)(?![A-Za-z])", " ; "),
    (r"[\u2192\u21d2\u27f9\u21d4]|[-=]+>", " ; "),
    (r"(?<=\d)\*\*(?=\d)", "^"),
    (r"\*\*|`", ""),
    ("\u00b2", "^2"), ("\u00b3", "^3"), ("\u00bd", "⟦1/2⟧"), ("\u00bc", "⟦1/4⟧"), ("\u00be", "⟦3/4⟧"),
    ("\u2153", "⟦1/3⟧"), ("\u2154", "⟦2/3⟧"), (r"\\%", "%"), ("\u00a2", " cents"),
    (r"\\[lc]?dots[a-z]?(?![A-Za-z])|\u2026|\.\.\.+", OPAQUE),
))  # fmt: skip
_COMMANDS = tuple((re.compile(pattern), replacement) for pattern, replacement in (
    (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)" + _ARG, r" \1 "),
    (r"\\(?:boxed|fbox)" + _ARG, r" \1 "),
    (r"\\[dtc]?frac" + _ARG + _ARG, r"⟦(\1)/(\2)⟧"),
    (r"\\[dtc]?frac\s*(\d)\s*(\d)", r"⟦(\1)/(\2)⟧"),
    (r"\\[dtc]?frac\s*(\d)" + _ARG, r"⟦(\1)/(\2)⟧"),
    (r"\\[dtc]?frac" + _ARG + r"\s*(\d)", r"⟦(\1)/(\2)⟧"),
    (r"\\sqrt" + _ARG, r"√(\1)"),
    (r"\^" + _ARG, r"^(\1)"),
    (r"_" + _ARG, "_" + OPAQUE),
))  # fmt: skip
_LATER = tuple((re.compile(pattern), replacement) for pattern, replacement in (
    (r"\\?[$\u20ac\u00a3]", " " + MONEY),
    (rf"((?<![A-Za-z])(?:{_LENGTHS}))\s?\^\s?\(?[23]\)?", r"\1"),
    (r"\\[A-Za-z]+", OPAQUE),
    (r"\\", OPAQUE),
    (r"(?<=\d)\s?percent\b", "%"),
    (r"(?<=[\w.)%⟧]) {0,2}\b[xX] {0,3}(?=[\d.(¤])|(?<=\d)[xX](?=[\d.(¤])", " * "),
    (r"\n\s*(?=[=\u2248])", " "),
))  # fmt: skip
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!,?\d)")
