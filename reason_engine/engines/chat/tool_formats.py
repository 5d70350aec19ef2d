"""How models write tool calls: formats by name, ours, with vLLM's names of the same beside them.

After the mark of any format a call as JSON is read too: so calls are written where a request forces one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reason_engine.engines.chat.call_readers import Call, Reader, named_json, read_json, read_objects, read_quoted
from reason_engine.engines.chat.pythonic import pythonic
from reason_engine.engines.chat.tagged_calls import read_functions, read_invocations, read_pairs, read_wrapped_pairs


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """`start` and `end` stand around calls, `read` takes what follows `start`. `bare`: a text that is nothing but
    calls, with no mark or an optional one; `start` then only tells a reader of the stream where one may begin.
    `opening` is what a forced call begins with, before its JSON."""

    name: str
    start: str
    end: str
    read: Reader
    aliases: tuple[str, ...] = ()
    bare: bool = False
    mark: str = ""
    """Of a bare format: what may stand before the calls."""
    opens: str | None = None
    inner: str = ""
    """Marks inside of calls, one after another."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Every text that a reader must see."""
        return (self.start, self.end, self.mark, self.inner, self.opening)

    @property
    def opening(self) -> str:
        """What a forced call begins with."""
        if self.opens is not None:
            return self.opens
        return "" if self.bare else f"{self.start}\n"

    def extract(self, text: str, *, prompt: str = "") -> tuple[list[Call], str]:
        """The well-formed calls, and the text without them; a malformed call stays in the text."""
        return self._whole(text, prompt) if self.bare else self._marked(text)

    def _marked(self, text: str) -> tuple[list[Call], str]:
        calls: list[Call] = []
        kept, rest = [], text
        while (at := rest.find(self.start)) >= 0:
            inside = rest[at + len(self.start) :]
            read = self.read(inside) or read_json(inside)
            after = inside[read[1] :].lstrip() if read else ""
            if read and self.end and after and not after.startswith((self.end, self.start)):
                read = None
            if read is None:
                kept.append(rest[: at + len(self.start)])
                rest = inside
                continue
            calls += read[0]
            kept.append(rest[:at])
            rest = after.removeprefix(self.end)
        kept.append(rest)
        whole = "".join(kept)
        return calls, whole.strip() if calls else text

    def _whole(self, text: str, prompt: str) -> tuple[list[Call], str]:
        body = text.strip()
        body = body.removeprefix(self.mark).removesuffix(self.end).strip() if self.mark else body
        for reader in (self.read, read_objects):
            read = reader(body)
            if read and not body[read[1] :].strip() and all(_offered(name, prompt) for name, _ in read[0]):
                return read[0], ""
        return [], text


def _offered(name: str, prompt: str) -> bool:
    """Whether a prompt, where it is known, names this tool: a text without marks may be an answer as well."""
    return not prompt or re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", prompt) is not None


_NAME = r"([\w.:/-]+)"
_DEEPSEEK = "<｜tool▁call▁begin｜><｜tool▁sep｜><｜tool▁call▁end｜>"
HERMES = ToolFormat(
    "hermes", "<tool_call>", "</tool_call>", read_json,
    aliases=("qwen", "qwen3_json", "ernie45", "granite4", "xlam", "olmo3_json", "hunyuan_json"),
)  # fmt: skip
FORMATS = (
    HERMES,
    ToolFormat("qwen3_coder", "<tool_call>", "</tool_call>", read_functions, aliases=("qwen3_xml", "mimo", "step3p5")),
    ToolFormat("seed_oss", "<seed:tool_call>", "</seed:tool_call>", read_functions),
    ToolFormat("glm45", "<tool_call>", "</tool_call>", read_pairs, aliases=("glm", "glm47", "poolside_v1", "ling3"),
               inner="<arg_key></arg_key><arg_value></arg_value>"),
    ToolFormat("hy_v3", "<tool_calls>", "</tool_calls>", read_wrapped_pairs, aliases=("hy_v4", "hunyuan-v3"),
               inner="<tool_call></tool_call><tool_sep><arg_key></arg_key><arg_value></arg_value>"),
    ToolFormat("llama3_json", '{"name":', "", read_objects, aliases=("llama4_json",), bare=True, mark="<|python_tag|>"),
    ToolFormat("pythonic", "[", "<|python_end|>", pythonic(), aliases=("llama4_pythonic",), bare=True,
               mark="<|python_start|>"),
    ToolFormat("mistral", "[TOOL_CALLS]", "", named_json(rf"\s*(?:\[TOOL_CALLS\])?{_NAME}(?:\[CALL_ID\]\w+)?"
               r"(?:\[ARGS\])?\s*(?=\{)", r"\s*"), inner="[ARGS][CALL_ID]"),
    ToolFormat("deepseek_v3", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
               named_json(rf"\s*<｜tool▁call▁begin｜>\w*<｜tool▁sep｜>{_NAME}\s*```json\s*",
                          r"\s*```\s*(?:<｜tool▁call▁end｜>)?"), inner=_DEEPSEEK),
    ToolFormat("deepseek_v31", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
               named_json(rf"\s*<｜tool▁call▁begin｜>{_NAME}<｜tool▁sep｜>", r"\s*(?:<｜tool▁call▁end｜>)?"),
               inner=_DEEPSEEK),
    ToolFormat("deepseek_v32", "<｜DSML｜function_calls>", "</｜DSML｜function_calls>", read_invocations,
               inner="｜DSML｜"),
    ToolFormat("deepseek_v4", "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", read_invocations,
               inner="｜DSML｜"),
    ToolFormat("deepseek_v41", "<｜DSML｜ calls>", "</｜DSML｜ calls>", read_invocations, inner="｜DSML｜"),
    ToolFormat("dots", "<dots_function_call>", "</dots_function_call>", read_invocations),
    ToolFormat("muse_glimmer", "<atem:function_calls>", "</atem:function_calls>", read_invocations),
    ToolFormat("cohere", "<|START_ACTION|>", "<|END_ACTION|>", read_json,
               aliases=("cohere_command3", "cohere_command4")),
    ToolFormat("minimax_m2", "<minimax:tool_call>", "</minimax:tool_call>", read_invocations),
    ToolFormat("kimi_k2", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
               named_json(r"\s*<\|tool_call_begin\|>\s*(?:functions\.)?([\w.-]+)(?::\d+)?\s*"
                          r"<\|tool_call_argument_begin\|>\s*", r"\s*(?:<\|tool_call_end\|>)?"), aliases=("kimi",),
               inner="<|tool_call_begin|><|tool_call_argument_begin|><|tool_call_end|>"),
    ToolFormat("granite", "<|tool_call|>", "", read_json),
    ToolFormat("granite-20b-fc", "<function_call>", "", read_json, aliases=("granite_20b_fc",)),
    ToolFormat("nemotron", "<TOOLCALL>", "</TOOLCALL>", read_json),
    ToolFormat("jamba", "<tool_calls>", "</tool_calls>", read_json, aliases=("hunyuan_a13b", "hunyuan")),
    ToolFormat("gemma4", "<|tool_call>", "<tool_call|>", read_quoted('<|"|>', "<tool_call|>"), inner='<|"|>'),
    ToolFormat("functiongemma", "<start_function_call>", "<end_function_call>",
               read_quoted("<escape>", "<end_function_call>"), inner="<escape>"),
    ToolFormat("gemma", "```tool_code\n", "```", pythonic("```")),
    ToolFormat("lfm2", "<|tool_call_start|>", "<|tool_call_end|>", pythonic("<|tool_call_end|>")),
    ToolFormat("olmo3", "<function_calls>", "</function_calls>", pythonic("</function_calls>")),
    ToolFormat("phi4_mini_json", "functools", "", read_json, aliases=("phi4_mini",)),
    ToolFormat("internlm", "<|action_start|><|plugin|>", "<|action_end|>", read_json),
    ToolFormat("longcat", "<longcat_tool_call>", "</longcat_tool_call>", read_json),
    ToolFormat("harmony", "<|channel|>commentary to=", "<|call|>", read_json, aliases=("openai", "gpt-oss", "gpt_oss"),
               opens="<|channel|>commentary to=functions <|constrain|>json<|message|>"),
)  # fmt: skip
BY_NAME: Mapping[str, ToolFormat] = {name: each for each in FORMATS for name in (each.name, *each.aliases)}
