"""Questions that one short name answers: "What is the capital of France?", "Which planet is nearest to the sun?". Part
of `answers`.

Nothing in the form of a question tells a name from a story: "Who was Napoleon?" wants some lines. So a question is for
a name only where it is one short sentence that asks for what has one: an attribute of something (its capital, currency,
symbol), the largest or nearest of a class of things, or which of such a class it is. All others stay free.
"""

from __future__ import annotations

import re


def asks_for_a_name(question: str) -> bool:
    """Whether one short name answers this question."""
    asked = question.strip()
    return len(asked) <= LONGEST and _NAME.fullmatch(asked) is not None and not _MORE.search(asked)


LONGEST = 120
"""Signs of a question for a name; longer ones tell a story or want one."""
_ATTRIBUTES = (
    "capital(?: city)?|currency|(?:official|national|native|main) language|(?:chemical |atomic )?symbol|"
    "chemical formula|antonym|opposite|synonym|plural(?: form)?|past tense|nationality|birthplace|hometown|"
    "(?:(?:first|last|middle|full|real|birth|maiden|stage|common|scientific|chemical) )?name|nickname|surname|"
    "abbreviation|acronym|(?:national|state) (?:animal|bird|flower|flag|anthem|sport|dish)|colou?r"
)
_THINGS = (
    "planet|country|nation|city|town|state|province|continent|ocean|sea|lake|river|mountain|peak|island|desert|forest|"
    "volcano|waterfall|animal|mammal|bird|fish|insect|reptile|organ|bone|muscle|gland|element|metal|gas|mineral|star|moon|"
    "galaxy|building|bridge|language|religion|colou?r|currency|vitamin|hormone|instrument|company|president|king|"
    "queen|emperor|actor|actress|author|writer|poet|painter|composer|scientist|philosopher|inventor|explorer|god|goddess"
)
_MOST = (
    "largest|biggest|smallest|longest|shortest|tallest|highest|deepest|oldest|youngest|fastest|slowest|hottest|"
    "coldest|heaviest|lightest|hardest|brightest|closest|nearest|farthest|furthest|first|last|only|"
    "(?:second|third)[ -](?:largest|biggest|smallest|longest|tallest|highest|deepest)|"
    "(?:most|least) (?:common|populous|populated|abundant|famous|widely spoken|spoken)"
)
_NAME = re.compile(
    r"(?:please (?:tell me|answer):? )?(?:"
    rf"what(?:'s|\u2019s| is| was| are| were) (?:the |an? )?(?:{_ATTRIBUTES}) (?:of|for|in|to)\b|"
    rf"(?:what|which)(?:'s|\u2019s| is| was) the (?:{_MOST}) (?:[\w-]+ ){{0,2}}?(?:{_THINGS})\b|"
    rf"(?:(?:in|on|of|from|to|by) )?(?:what|which) (?:{_THINGS})(?! of\b)"
    r")[^.?!\n:;]*\?",
    re.IGNORECASE,
)
_MORE = re.compile(r"\band (?:what|why|how|who|when|where|which|its|their)\b|\bwhy\b|\bhow\b", re.IGNORECASE)
"""More than a name is wanted."""
