"""Which language a text is in, by its script, its commonest small words and its letters. A light, honest guess.

The idea is that of Grefenstette 1995, "Comparing two language identification schemes" (small words), with the letters
that only some languages use as a second witness:

    score(L) = (1/|W|) Σ_{w ∈ W} [w ∈ small(L)] / #{languages with w}  +  (1/|W|) Σ_{w ∈ W} [w has a letter of L alone]

The best language wins if it scores 0.06 and a quarter more than the next; else the text is undecided (None), as
are texts of fewer than four words once code, formulas and numbers are taken out. Languages told apart by their script
need a third of the letters in it. Departures: no trained n-gram profiles, so that close relatives that are
not listed (Norwegian, Catalan, Bulgarian) come out as a neighbour or undecided.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from reason_engine.data.texts import without_kept


def language_of(text: str) -> str | None:
    """The language as its two-letter code, or None where the text does not tell."""
    prose = unicodedata.normalize("NFC", without_kept(text)[:_READ]).casefold()
    letters = [sign for sign in prose if sign.isalpha()]
    if (script := _script(letters)) is not None:
        return script
    found = _WORD.findall(prose)
    if len(found) < _FEWEST:
        return None
    scores: dict[str, float] = {}
    for word in found:
        if owners := _OWNERS.get(word):
            for code in owners:
                scores[code] = scores.get(code, 0.0) + 1 / len(owners)
        for sign in set(word):
            if code := _LETTERS.get(sign):
                scores[code] = scores.get(code, 0.0) + 1
    ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    (first, best), (_, second) = (*ranked, ("", 0.0), ("", 0.0))[:2]
    if best / len(found) < _LEAST or best < _LEAD * second:
        return None
    return first


def languages() -> tuple[str, ...]:
    """Every language that can be found."""
    return tuple(sorted({*_SMALL, *_SCRIPTS.values(), "uk", "zh", "ja", "fa"}))


def _script(letters: list[str]) -> str | None:
    counts = Counter(
        next((name for name, low, high in _RANGES if low <= sign <= high), "") for sign in letters
    )
    del counts[""]
    if not counts or len(letters) < 2 or 3 * counts.total() < len(letters):
        return None
    if counts["kana"]:
        return "ja"
    name = counts.most_common(1)[0][0]
    if name == "han":
        return "zh"
    if name == "cyrillic" and any(sign in "іїєґ" for sign in letters):
        return "uk"
    if name == "arabic" and any(sign in "پچژگ" for sign in letters):
        return "fa"
    return _SCRIPTS[name]


_READ, _FEWEST, _LEAST, _LEAD = 20_000, 4, 0.06, 1.25
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "cyrillic": "ru", "greek": "el", "hebrew": "he", "arabic": "ar", "devanagari": "hi", "thai": "th", "hangul": "ko",
}  # fmt: skip
_RANGES = (
    ("cyrillic", "\u0400", "\u04ff"), ("hebrew", "\u0590", "\u05ff"), ("arabic", "\u0600", "\u06ff"),
    ("devanagari", "\u0900", "\u097f"), ("thai", "\u0e00", "\u0e7f"), ("kana", "\u3040", "\u30ff"),
    ("han", "\u4e00", "\u9fff"), ("hangul", "\uac00", "\ud7af"), ("greek", "\u0386", "\u03ff"),
)  # fmt: skip
_SMALL = {
    "en": "the of and to in is that it for was on are as with his they at be this have from or had by but not what "
    "all were we when your can said there an each which she do how their if will many them her has been who its you "
    "he does much more than",
    "de": "der die das und ist nicht ein eine zu den von mit sich des dem auf für im auch als es an wie er sie wir "
    "ich haben hat wird sind bei einer einem einen aus nach oder aber noch nur werden kann wenn dass viele war",
    "fr": "le la les de des et est un une du dans que qui pour pas sur au avec ce il elle nous vous je ne se par plus "
    "sont mais ou son ses cette leur être avait combien sa aux si tout ils comme fait",
    "es": "el la los las de que y en un una es por con no para su al se del lo como más pero sus le ya o este sí "
    "porque esta entre cuando muy sin sobre también fue son está cuántos hay tiene ella",
    "it": "il la i gli le di che e un una è per non in con del della sono da al si come più ma anche dei nel alla lo "
    "ha questo quanti suo sua delle dal io loro ci essere era hanno",
    "pt": "o a os as de que e em um uma é para com não por do da dos no na se mais como mas foi ao ele ela das à seu "
    "sua ou ser quando muito há nos já está também quantos tem são",
    "nl": "de het een en van is dat niet op te in zijn met voor aan er maar om ook als dan bij of uit nog naar heeft "
    "hij ze wij ik worden wordt door over kan deze hoeveel hebben werd was",
    "sv": "och att det som en är på av för med den till inte har om ett var jag men vi han hon så från kan när "
    "eller ska nu sig här vid hur många efter de i under också hade",
    "da": "og at det som en er på af for med den til ikke har om et var jeg men vi han hun så fra kan når eller skal "
    "nu sig her ved hvor mange efter de i under også havde af blev",
    "pl": "i w na z się nie to jest do że jak o po co ale przez za od tak ich jego czy już dla są był być tylko ile "
    "może ma oraz która który jej",
    "tr": "ve bir bu da de için ne ile çok daha gibi o kadar var mı olan olarak değil ama sonra her en kaç ben onun ki "
    "diye ise olduğu tane",
    "fi": "ja on ei se että hän oli mutta kun niin tai ovat ole mitä jos myös kuin minä joka vain sen olla nyt "
    "kanssa hänen kuinka monta jälkeen tämä sitten",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga ke karena ada dia kami saya mereka bisa "
    "oleh sudah atau adalah berapa seperti telah",
}
_OWNERS: dict[str, tuple[str, ...]] = {}
for _code, _text in _SMALL.items():
    for _one in dict.fromkeys(_text.split()):
        _OWNERS[_one] = (*_OWNERS.get(_one, ()), _code)
_LETTERS = {
    sign: code
    for code, signs in {
        "de": "ß",
        "es": "ñ¿¡",
        "pt": "ãõ",
        "pl": "łąęśźż",
        "tr": "ğış",
        "da": "ø",
        "fr": "œê",
    }.items()
    for sign in signs
}
del _LETTERS["ı"], _LETTERS["ê"]  # undotted i comes of case folding elsewhere; ê is Portuguese and Dutch too
_LETTERS |= {"ı": "tr"}
