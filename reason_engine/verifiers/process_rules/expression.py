"""One reading of a side: recursive descent over its tokens, never evaluated as code.

sum = product (("+" | "-") product)*     product = factor (("*" | "/") factor)*     factor = power "(" ... ")"
power = atom "!"? ("^" power)? "%"?      atom = number fraction? | "(" sum ")" | "\u221a" atom | "-" power
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from reason_engine.verifiers.process_rules.tokens import OF, Token

DEPTH, EXPONENT, LARGEST = 40, 64, 10**60
"""Brackets in brackets, exponents and values beyond which there is no value."""

Percent = Literal["share", "unit", "relative"]
Tight = Literal["no", "divisor", "glued"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a side."""

    percent: Percent = "share"
    tight: Tight = "no"
    implicit: bool = False
    mixed: bool = True
    factorial: bool = False
    unsigned: bool = False


class Expression:
    """The tokens of a side, to be read once."""

    def __init__(self, parts: Sequence[Token], reading: Reading) -> None:
        self._parts, self._reading, self._at, self._depth = parts, reading, 0, 0
        if reading.unsigned:
            self._at = 1

    def value(self) -> Fraction:
        """Raises ValueError where it is no arithmetic, ZeroDivisionError where it divides by zero."""
        found = self._sum()
        if self._at < len(self._parts):
            raise ValueError("more than an expression")
        return found

    def _next(self, ahead: int = 0) -> Token:
        place = self._at + ahead
        return self._parts[place] if place < len(self._parts) else Token("border", "")

    def _take(self) -> Token:
        token = self._next()
        self._at += 1
        return token

    def _sum(self) -> Fraction:
        total = self._product()
        while self._next().text in ("+", "-"):
            sign = 1 if self._take().text == "+" else -1
            start = self._at
            term = self._product()
            alone = self._at == start + 2 and self._parts[start + 1].text == "%"
            relative = alone and self._reading.percent == "relative"
            total += sign * term * (total if relative else 1)
        return _bounded(total)

    def _product(self) -> Fraction:
        total = self._factor()
        while True:
            if self._next().text in ("*", OF):
                self._take()
                total *= self._factor()
            elif self._next().text == "/":
                self._take()
                total /= self._divisor()
            elif self._multiplies():
                total *= self._factor()
            else:
                return _bounded(total)

    def _divisor(self) -> Fraction:
        """A factor; 1/3 in `8 / 1/3`, where the reading takes it so."""
        factor = self._factor()
        if self._reading.tight == "divisor" and self._next().text == "/":
            self._take()
            factor /= self._factor()
        return factor

    def _factor(self) -> Fraction:
        """A power, with (3) in `2(3)` and /3 in `1/3`, where the reading takes them as one."""
        factor = self._power()
        while (
            self._reading.tight == "glued" and self._next().text == "/" and self._next().glued and self._next(1).glued
        ):
            self._take()
            factor /= self._power()
        while self._reading.implicit and self._multiplies():
            factor *= self._power()
        return factor

    def _multiplies(self) -> bool:
        """Whether a bracket or a root follows a factor without an operator."""
        return self._next().text in ("(", "[", "⟦", "√")

    def _power(self) -> Fraction:
        base = self._atom()
        if self._next().text == "!":
            self._take()
            if self._reading.factorial:
                base = _factorial(base)
        if self._next().text == "^":
            self._take()
            exponent = self._power()
            if exponent.denominator != 1 or abs(exponent) > EXPONENT or abs(base) > LARGEST:
                raise ValueError("no such power")
            base = base**exponent.numerator
        if self._next().text == "%":
            self._take()
            base = base if self._reading.percent == "unit" else base / 100
        return _bounded(base)

    def _atom(self) -> Fraction:
        token = self._take()
        self._depth += 1
        if self._depth > DEPTH:
            raise ValueError("nested too deep")
        if token.text == "-":
            found = -self._power()
        elif token.text == "√":
            found = _root(self._atom())
        elif token.kind == "open":
            found = self._sum()
            if self._take().text != _CLOSES[token.text]:
                raise ValueError("a bracket is open")
        elif token.kind == "number":
            found = self._number(token)
        else:
            raise ValueError("a number is wanted")
        self._depth -= 1
        return found

    def _number(self, token: Token) -> Fraction:
        whole = Fraction(token.text)
        if not self._reading.mixed or whole.denominator != 1 or "." in token.text:
            return whole
        if self._next().text == "⟦":
            return whole + self._atom()
        over = [self._next(number) for number in range(3)]
        if [one.kind for one in over] == ["number", "operator", "number"] and over[1].text == "/" and over[1].glued:
            self._at += 3
            return whole + Fraction(over[0].text) / Fraction(over[2].text)
        return whole


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise ValueError("no real root")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        raise ValueError("an irrational root")
    return root


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or not 0 <= value <= 40:
        raise ValueError("no such factorial")
    return Fraction(math.factorial(value.numerator))


def _bounded(value: Fraction) -> Fraction:
    if abs(value.numerator) > LARGEST or value.denominator > LARGEST:
        raise ValueError("too large")
    return value


_CLOSES = {"(": ")", "[": "]", "{": "}", "⟦": "⟧"}
