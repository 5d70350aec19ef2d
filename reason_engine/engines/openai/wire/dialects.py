"""How servers that speak OpenAI's API call what that API lacks, one value a kind of server.

Read in the sources of vLLM 0.32, llama.cpp's server (of llama-cpp-python 0.3.36) and SGLang (its request classes), in
the documentation of Ollama. Whatever a dialect has a name for is sent with every request, also where it is neutral:
vLLM and SGLang take defaults from the model's generation_config, and llama.cpp's server cuts by top_k 40 and min_p 0.05
unless told not to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from reason_engine.types import Structured

Kind = Literal["openai", "vllm", "sglang", "llama.cpp", "ollama"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Usage = Literal["request", "choice", "sample"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of server's own words.

    `names`: its names of `Sampling` fields that OpenAI's API lacks. `always`: sent with every request. `ids`: what asks
    for the drawn tokens' ids. `usage`: whose tokens a `usage` object counts: the whole request's; those of the choice
    beside it so far (vLLM's continuous usage); those of the sample that has just ended (llama.cpp).
    """

    kind: Kind
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    always: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ids: Mapping[str, Any] = field(default_factory=dict[str, Any])
    usage: Usage = "request"
    all_top_k: int = 0
    """Its value of top_k for the whole vocabulary."""
    fewest_logprobs: int = 0
    """The fewest alternatives with which it tells a token's own probability."""
    template: bool = False
    """Takes `chat_template_kwargs`."""
    reasoning: str = ""
    """Its name of an earlier turn's reasoning, where it takes one."""

    def constrained(self, wanted: Structured) -> Mapping[str, Any] | None:
        """The fields of a regex or choice constraint; None where it has none."""
        choice = list(wanted.choice)
        match self.kind:
            case "vllm":
                inner = {"choice": choice} if wanted.regex is None else {"regex": wanted.regex}
                return {"structured_outputs": inner}
            case "sglang":
                return {"regex": wanted.regex if wanted.regex is not None else "|".join(map(re.escape, choice))}
            case "llama.cpp" if wanted.regex is None:
                return {"grammar": "root ::= " + " | ".join(json.dumps(one, ensure_ascii=False) for one in choice)}
            case _:
                return None


_OF_ALL = {name: name for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos", "stop_token_ids")}

DIALECTS: Mapping[Kind, Dialect] = {
    "openai": Dialect("openai"),
    "vllm": Dialect(
        "vllm",
        _OF_ALL | {"include_stop": "include_stop_str_in_output"},
        always={"return_token_ids": True},
        usage="choice",
        template=True,
        reasoning="reasoning",
    ),
    "sglang": Dialect(
        "sglang",
        _OF_ALL | {"include_stop": "no_stop_trim"},
        ids={"return_token_ids": True},
        usage="choice",
        all_top_k=-1,
        template=True,
        reasoning="reasoning_content",
    ),
    "llama.cpp": Dialect(
        "llama.cpp",
        {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty", "ignore_eos": "ignore_eos"},
        always={"cache_prompt": True},
        ids={"return_tokens": True, "verbose": True},
        usage="sample",
        fewest_logprobs=1,
        template=True,
        reasoning="reasoning_content",
    ),
    "ollama": Dialect("ollama"),
}
