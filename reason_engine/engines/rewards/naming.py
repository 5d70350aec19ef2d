"""What an operator's `NAME=PATH` or `NAME=URL` says: where the model is, what it is called there, which format it has.

    steps=/models/prm                      a folder; its format by the class in config.json and by the folder's name
    steps=/models/mine#format=trl          a folder of that format
    steps=http://host:8001#model           an endpoint, and the model's name there
    steps=process+http://host:8001#model&format=qwen-prm
    texts=embed+http://host:8001           an endpoint that embeds

An endpoint is `process` where its prefix says so or where its model's name is that of a step model in the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urldefrag, urlsplit

from reason_engine.engines.rewards.formats import FORMATS, OVERRIDE, RewardFormat, RewardKind, find_format
from reason_engine.errors import RequestError, SetupError, UnknownModel
from reason_engine.types import ScoreRequest

PROCESS, EMBED = "process+", "embed+"
"""Before a URL: what the model behind it does, where that is not judging whole answers."""
STATED = re.compile(r"(?:^|&)format=([^&]*)")
JUDGE = (
    "writes its judgement; serve it as the model, or by --upstream-url, and use the verifier 'critique' with the "
    "parameter style: {style}"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: its address without the prefixes, the model's name there or empty."""

    url: str
    model: str
    embeds: bool
    format: RewardFormat


def is_url(text: str) -> bool:
    """Whether this names an endpoint."""
    return _bare(text).startswith(("http://", "https://"))


def split_format(name: str, path: str) -> tuple[str, RewardFormat | None]:
    """The path, and the format that is named behind it. Raises SetupError for one that there is not."""
    place, mark, stated = path.rpartition("#format=")
    return (place, stated_format(name, stated)) if mark else (path, None)


def read_endpoint(name: str, text: str) -> Endpoint:
    """Raises SetupError for a URL without a host, and for a step model whose format nobody knows."""
    url, fragment = urldefrag(_bare(text))
    found = STATED.search(fragment)
    model = STATED.sub("", fragment).strip("&")
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise SetupError(f"the endpoint {text!r} names no host, or no port that there is")
    embeds = text.startswith(EMBED)
    known = stated_format(name, found[1]) if found else None if embeds else find_format(model)
    if known is None and text.startswith(PROCESS):
        raise unknown_format(name, f"the endpoint's model {model!r}" if model else "the endpoint's model, unnamed,")
    if known is not None and known.head == "written":
        raise SetupError(f"reward model {name!r}: {model or url} {JUDGE.format(style=known.name)}")
    return Endpoint(url.rstrip("/"), model, embeds, known or FORMATS["classify"])


def stated_format(name: str, stated: str) -> RewardFormat:
    """The row of that name. Raises SetupError."""
    if stated not in FORMATS:
        raise SetupError(f"reward model {name!r}: no format is called {stated!r}; {OVERRIDE}")
    return FORMATS[stated]


def unknown_format(name: str, what: str) -> SetupError:
    """Of a step model that the table does not know."""
    return SetupError(f"reward model {name!r}: {what} is of no format in the table of step models; {OVERRIDE}")


def choose_reward(request: ScoreRequest, kinds: Mapping[str, RewardKind]) -> str:
    """The reward model that a request means. Raises UnknownModel, or RequestError where it does not say which."""
    names, param = ", ".join(kinds), "reasoning.verifier.params.model"
    if request.model is None and len(kinds) != 1:
        raise RequestError(f"which reward model? one of: {names}", param=param)
    name = next(iter(kinds)) if request.model is None else request.model
    if name not in kinds:
        raise UnknownModel(f"no reward model named {name!r}; one of: {names}", param=param, code="model_not_found")
    if request.task == "token_reward" and kinds[name] == "outcome":
        raise RequestError(f"the reward model {name!r} judges whole answers only", param=param)
    return name


def _bare(text: str) -> str:
    return text.removeprefix(PROCESS).removeprefix(EMBED)
