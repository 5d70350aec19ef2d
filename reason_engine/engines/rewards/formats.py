"""The formats of reward models, as a table: what each is shown, where it is read and what a reading means.

A step model knows steps by a mark of its own, and a number at any other place means nothing. Every value is brought to
log-odds that a step is right (class 1 against class 0; `+` against `-`; the value before its sigmoid), so that the
logistic function gives the probability of each. A row follows the code that its makers published with the model:

Zhang et al. 2025, arXiv:2501.07301 (Qwen2.5-Math-PRM); He et al. 2024 (Skywork-o1-Open-PRM); Wang et al. 2023,
arXiv:2312.08935 (Math-Shepherd); Xiong et al. 2024 (RLHFlow's PRMs); Zeng et al. 2025, arXiv:2502.06737 (VersaPRM); von
Werra et al., TRL's PRMTrainer; Khalifa et al. 2025, arXiv:2504.16828 (ThinkPRM); Zhao et al. 2025, arXiv:2504.00891
(GenPRM); Liu et al. 2025, arXiv:2507.01352 (Skywork-Reward-V2); Cai et al. 2024, arXiv:2403.17297 (InternLM2).

Departures: where a mark stands in a step's own text it is left out; a client's system turn is put before the question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reason_engine.types import Aggregate

RewardKind = Literal["outcome", "process"]


@dataclass(frozen=True, slots=True)
class RewardFormat:
    """One row. `layout`: the steps are the assistant's turn, or each a user's turn that the mark answers, or there are
    no turns. `opening` stands between question and steps, `mark` after each step, `between` after each mark but the
    last; `numbered` begins a step that has no such beginning. `apart`: steps and marks are tokenised one by one.
    `read`: at the mark's last token, at the step's, before the mark, or at the end of all, which `ending` follows.
    `head`: one label or two a token, the language model's two tokens, or a text that is written. `pooled`: whether a
    pooling server gives a row for each token or for each mark."""

    name: str
    kind: RewardKind
    architectures: tuple[str, ...]
    """Ends of the class in `config.json`."""
    names: str = ""
    """Regular expression in the model's name; without one the architecture says it all."""
    labels: int | None = None
    """Only where the head has so many."""
    layout: Literal["turn", "turns", "text"] = "turn"
    system: str | None = None
    opening: str = ""
    numbered: str = ""
    mark: str = ""
    between: str = ""
    ending: str = ""
    apart: bool = False
    read: Literal["mark", "step", "before-mark", "end"] = "mark"
    head: Literal["labels", "tokens", "written"] = "labels"
    good: str = "+"
    bad: str = "-"
    pooled: Literal["tokens", "marks"] = "tokens"
    aggregate: Aggregate = "min"

    def fits(self, name: str, architecture: str | None, labels: int | None) -> bool:
        """Whether a model of that name is of this format; what is None is not known."""
        if architecture is None:
            return bool(self.names) and self._named(name)
        if not architecture.endswith(self.architectures) or self.labels not in (None, labels):
            return False
        return not self.names or self._named(name) or not architecture.endswith(NAMELESS)

    def _named(self, name: str) -> bool:
        return re.search(self.names, name, re.IGNORECASE) is not None


NAMELESS = ("ForCausalLM", "ForTokenClassification")
"""Classes that do not tell a format by themselves."""
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
TABLE = (
    RewardFormat(
        "qwen-prm", "process", ("ForProcessRewardModel",), r"math-prm", system=BOXED, mark="<extra_0>", pooled="marks",
        aggregate="product",
    ),
    RewardFormat(
        "skywork-prm", "process", ("ForPrmModel",), r"skywork.*prm", layout="text", opening="\n", mark="\n", apart=True,
        aggregate="last",
    ),
    RewardFormat("plain-steps", "process", ("ForTokenClassification",), labels=1, read="step"),
    RewardFormat(
        "trl-newline", "process", ("ForTokenClassification",), r"\btrl\b|math-shep+h?erd-prm|reward-math-shep",
        layout="text", opening="\n", mark="\n", apart=True, aggregate="last",
    ),
    RewardFormat(
        "trl", "process", ("ForTokenClassification",), r"instruct-prm", layout="text", opening="\n\n", mark="\n\n",
        apart=True, aggregate="last",
    ),
    RewardFormat(
        "math-shepherd", "process", ("ForCausalLM",), r"math-shepherd", layout="text", opening=" ",
        numbered="Step {n}: ", mark=" \u043a\u0438", between="\n", head="tokens",
    ),
    RewardFormat(
        "rlhflow", "process", ("ForCausalLM",), r"rlhflow|prm-(deepseek|mistral)-data", layout="turns", mark="+",
        read="before-mark", head="tokens", aggregate="last",
    ),
    RewardFormat(
        "versa-prm", "process", ("ForCausalLM",), r"versaprm", layout="text", opening=" \n\n", mark=" \n\n\n\n",
        head="tokens",
    ),
    RewardFormat("think-prm", "process", ("ForCausalLM",), r"think-?prm", head="written"),
    RewardFormat("gen-prm", "process", ("ForCausalLM",), r"gen-?prm", head="written"),
    RewardFormat(
        "internlm2-reward", "outcome", ("InternLM2ForRewardModel",), r"internlm2.*reward", ending="<|reward|>",
        read="end",
    ),
    RewardFormat("classify", "outcome", ("ForSequenceClassification",), r"skywork-reward", read="end"),
)  # fmt: skip
"""In the order in which they are tried."""
FORMATS: Mapping[str, RewardFormat] = {row.name: row for row in TABLE}
OVERRIDE = f"#format=NAME behind the path or URL names one of: {', '.join(FORMATS)}"


def find_format(name: str, architecture: str | None = None, labels: int | None = None) -> RewardFormat | None:
    """The row for a model, by its class where that is known, and by its name."""
    return next((row for row in TABLE if row.fits(name, architecture, labels)), None)
