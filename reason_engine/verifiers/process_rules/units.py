"""Units that measure one quantity in different sizes: 2 hours are 120 minutes, so their numbers may differ."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction


def convertible(words: Iterable[str]) -> bool:
    """Whether two units of one quantity are among these words (lower-cased)."""
    there = {_SIZES[word] for word in words if word in _SIZES}
    return len({quantity for quantity, _ in there}) < len(there)


_TIME = (
    "second|seconds|sec|secs minute|minutes|min|mins hour|hours|hr|hrs day|days week|weeks month|months year|years "
    "decade|decades century|centuries"
)
_LENGTH = (
    "inch|inches foot|feet|ft yard|yards mile|miles cm|centimeter|centimeters|centimetres mm|millimeters meter|meters|"
    "metres km|kilometer|kilometers|kilometres"
)
_WEIGHT = "ounce|ounces|oz pound|pounds|lb|lbs ton|tons gram|grams kg|kilogram|kilograms|kilos mg|milligrams"
_VOLUME = (
    "cup|cups pint|pints quart|quarts gallon|gallons ml|milliliters liter|liters|litres tablespoon|tablespoons "
    "teaspoon|teaspoons"
)
_MONEY = "cent|cents|penny|pennies dime|dimes nickel|nickels dollar|dollars"
_SIZES = {
    name: (quantity, size)
    for quantity, family in enumerate((_TIME, _LENGTH, _WEIGHT, _VOLUME, _MONEY))
    for size, names in enumerate(family.split())
    for name in names.split("|")
}
_WRITTEN = (
    "2 3 4 5 7 8 10 12 14 16 20 24 25 28 30 31 32 36 48 50 52 60 84 90 100 120 144 168 180 300 365 366 720 1440 1760 "
    "3600 5280 86400 13/3 127/50"
)
FACTORS = frozenset(map(Fraction, _WRITTEN.split()))
"""How many of one unit another may be."""
