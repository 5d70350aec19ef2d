"""What makes a rewritten question sound, and a model's reply a text: used by `augment` and `synthesize`."""

from __future__ import annotations

from reason_engine.answers import find
from reason_engine.data.filter.language import language_of
from reason_engine.data.formats.rows import Conversation, Labelled, Reference, Row
from reason_engine.data.synthesize.outputs import Refusal
from reason_engine.data.texts import kept, numbers, same_numbers, squeeze


def faults(before: str, after: str) -> Refusal | None:
    """Why a rewritten question cannot stand for the old one; None where it can."""
    if not after.strip():
        return Refusal("no-text")
    if squeeze(after).casefold() == squeeze(before).casefold():
        return Refusal("unchanged")
    if not same_numbers(before, after):
        return Refusal("numbers", {"before": numbers(before), "after": numbers(after)})
    lost, new = kept(before) - kept(after), kept(after) - kept(before)
    if lost or new:
        return Refusal("protected", {"lost": sorted(lost), "new": sorted(new)})
    share = len(after) / len(before)
    if not 0.5 <= share <= 2:
        return Refusal("length", {"share": round(share, 2)})
    spoken, now = language_of(before), language_of(after)
    if spoken and now and spoken != now:
        return Refusal("language", {"before": spoken, "after": now})
    return None


def known_answer(row: Row) -> str | None:
    """The right answer, where the row tells it."""
    match row:
        case Reference():
            return row.answer
        case Conversation():
            return find(row.answer.content)
        case Labelled():
            return find(row.completion) if row.label else None
        case _:
            return None


def language_name(text: str) -> str:
    """The language of a text as a prompt names it; English where the text does not tell."""
    return _LANGUAGES.get(language_of(text) or "en", "English")


def cleaned(text: str) -> str:
    """A model's text without the label, the fence or the quotation marks that it puts around."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and text.count("```") == 2:
        text = text[3:-3].partition("\n")[2].strip()
    head, colon, rest = text.partition(":")
    if colon and len(head) <= 40 and any(word in head.casefold() for word in _LABELS) and rest.strip():
        text = rest.strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == _QUOTES[text[0]] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}
_LABELS = ("rewritten", "rewrite", "paraphrase", "translation", "translated", "new version", "reworded")
_LANGUAGES = {
    "ar": "Arabic", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian",
    "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip
