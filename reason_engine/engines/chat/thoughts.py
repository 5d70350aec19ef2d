"""The marks between which models think, by family, and how a text is split at them.

A family is data: what begins a thought and what ends it, what stands around the answer, and how a thought is left out.
Names are ours, with vLLM's parser names beside them. What ends a thought inside an answer, or opens one in a user's
turn, is text like any other: only the assistant's own turn counts, and only its first thought.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reason_engine.errors import SetupError

SENTENCE = "Time is up; the answer has to come now."
"""What ends a thought that may not go on."""


@dataclass(frozen=True, slots=True)
class Thought:
    """How a family writes a thought.

    `exit` ends an open one and leads into the answer; `skip` stands for a whole one that is left out, where no switch
    does it. `answer_starts` and `answer_end` stand around the answer. `aliases` are other names of the family.
    """

    name: str
    start: str
    end: str
    exit: str = ""
    skip: str = ""
    answer_starts: tuple[str, ...] = ()
    answer_end: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def leave(self) -> str:
        """What ends an open thought, up to where the answer begins."""
        return self.exit or f"\n{self.end}\n\n"

    @property
    def omitted(self) -> str:
        """An empty thought, up to where the answer begins."""
        return self.skip or f"{self.start}\n{self.leave}"

    @property
    def cut(self) -> str:
        """What ends an open thought that may not go on."""
        return f"\n\n{SENTENCE}{self.leave}"

    @property
    def marks(self) -> tuple[str, ...]:
        """Every text that a reader must see to split what the model wrote."""
        return (self.start, self.end, self.leave, self.omitted, *self.answer_starts, self.answer_end)

    def opened(self, turn: str) -> bool:
        """Whether this beginning of the assistant's turn ends inside a thought."""
        return turn.rfind(self.start) > turn.rfind(self.end)

    def split(self, text: str, *, turn: str, asked: bool, thinks: bool) -> tuple[str | None, str]:
        """Reasoning and answer of what follows `turn`, the beginning of the assistant's turn; `asked`: there is one.

        Without it, a text that ends a thought began inside one if the model `thinks`.
        """
        opened = self.opened(turn)
        head = text.lstrip()
        begins = head.startswith(self.start)
        closed = asked and not opened and self.end in turn
        if not (opened or begins or (thinks and not closed and self.end in text)):
            return None, self.answer(text)
        body = head.removeprefix(self.start) if begins else text
        reasoning, found, content = body.partition(self.end)
        blank = " \n" if self.start[0].isalpha() else "\n"  # after words a space belongs to neither
        return reasoning.strip() or None, self.answer(content.lstrip(blank)) if found else ""

    def answer(self, text: str) -> str:
        """The answer without what stands around it."""
        head = text.lstrip()
        for start in self.answer_starts:
            if head.startswith(start):
                text = head.removeprefix(start).lstrip("\n")
                break
        return text.partition(self.answer_end)[0].rstrip() if self.answer_end and self.answer_end in text else text


def tags(name: str, *aliases: str) -> Thought:
    """A family that writes `<think>` and `</think>`."""
    return Thought(name, "<think>", "</think>", aliases=aliases)


HARMONY = Thought(
    "gpt-oss", "<|channel|>analysis<|message|>", "<|end|>",
    exit="<|end|><|start|>assistant<|channel|>final<|message|>", skip="<|channel|>final<|message|>",
    answer_starts=(
        "<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>", "<|start|>assistant",
    ),
    aliases=("harmony", "openai_gptoss", "gpt_oss"),
)  # fmt: skip
GEMMA = Thought("gemma", "<|channel>thought", "<channel|>", exit="\n<channel|>", aliases=("gemma4",))
MISTRAL = Thought("mistral", "[THINK]", "[/THINK]", exit="[/THINK]", skip="[THINK][/THINK]", aliases=("magistral",))
KIMI = Thought("kimi", "◁think▷", "◁/think▷", exit="◁/think▷", skip="◁think▷◁/think▷", aliases=("kimi_vl",))
GRANITE = Thought("granite", "Here is my thought process:", "Here is my response:", exit="\n\nHere is my response: ")
SEED = Thought("seed-oss", "<seed:think>", "</seed:think>", exit="</seed:think>", aliases=("seed_oss",))
HUNYUAN = Thought(
    "hunyuan", "<think>", "</think>", exit="\n</think>\n<answer>\n", answer_starts=("<answer>",),
    answer_end="</answer>", aliases=("hunyuan_a13b",),
)  # fmt: skip
ERNIE = Thought(
    "ernie", "<think>", "</think>", exit="\n</think>\n\n<response>\n", answer_starts=("<response>",),
    answer_end="</response>", aliases=("ernie45",),
)  # fmt: skip
COHERE = Thought(
    "cohere", "<|START_THINKING|>", "<|END_THINKING|>", exit="<|END_THINKING|><|START_RESPONSE|>",
    answer_starts=("<|START_RESPONSE|>", "<|START_TEXT|>"), aliases=("cohere_command3", "cohere_command4"),
)  # fmt: skip
QWEN = tags("qwen3", "qwen3_thinking", "mimo", "ling3", "minicpmv", "poolside_v1", "olmo3", "step3", "step3p5", "holo2")
GLM = tags("glm", "glm45", "glm47")
NEMOTRON = tags("nemotron", "nemotron_v3")
GRANITE_TAGS = tags("granite-thinking", "granite_thinking_parser")
DEEPSEEK_V3 = tags("deepseek-v3", "deepseek_v3", "deepseek_v4", "deepseek_v41")
DEEPSEEK_R1 = tags("deepseek-r1", "deepseek_r1", "minimax_m2", "minimax_m2_append_think")
HUNYUAN_V3 = tags("hunyuan-v3", "hy_v3", "hy_v4")
KIMI_K3 = Thought(
    "kimi-k3", "<|open|>think<|sep|>", "<|close|>think<|sep|>", exit="<|close|>think<|sep|><|open|>response<|sep|>",
    answer_starts=("<|open|>response<|sep|>",), answer_end="<|close|>response<|sep|>", aliases=("kimi_k3",),
)  # fmt: skip
MINIMAX_M3 = Thought("minimax-m3", "<mm:think>", "</mm:think>", aliases=("minimax_m3",))
K2_HORIZON = Thought("k2-horizon", "<ifm|think>", "</ifm|think>", aliases=("k2_horizon",))
PLAMO = Thought("plamo", "<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>", aliases=("plamo3",))
KIMI_K2 = Thought("kimi-k2", "<think>", "</think>", exit="</think>", skip="<think></think>", aliases=("kimi_k2",))
FAMILIES = (
    QWEN, DEEPSEEK_R1, DEEPSEEK_V3, HARMONY, GEMMA, MISTRAL, GLM, NEMOTRON, GRANITE, GRANITE_TAGS, KIMI, KIMI_K2,
    KIMI_K3, HUNYUAN, HUNYUAN_V3, SEED, ERNIE, COHERE, MINIMAX_M3, K2_HORIZON, PLAMO,
)  # fmt: skip


def thought_names() -> list[str]:
    """Every name that `--reasoning-parser` takes for a family."""
    return sorted({name for family in FAMILIES for name in (family.name, *family.aliases)})


def named_thought(name: str, others: Iterable[str] = ()) -> Thought:
    """The family of that name. Raises SetupError with the known names, `others` among them."""
    for family in FAMILIES:
        if name in (family.name, *family.aliases):
            return family
    known = ", ".join(sorted({*thought_names(), *others}))
    raise SetupError(f"--reasoning-parser {name}: no such parser; one of: {known}")
