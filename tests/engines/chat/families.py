"""Chat templates in the style of each family: our own, as short as they can be and still show what is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CALL: dict[str, Any] = {"city": "Oslo", "days": 2}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


@dataclass(frozen=True)
class Family:
    """A template and what is to be found in it. `head`: what begins the assistant's turn by default, `off` where it
    shall not think; `wrote`: what the model writes after `head` to think "so" and answer "42"; `call`: of `weather`."""

    thought: str | None
    tools: str
    template: str
    wrote: str
    call: str
    off: str
    head: str = ""
    thinks: bool = True
    specials: tuple[str, ...] = ()
    switch: str | None = None


def turns(user: str = "<|im_start|>{role}\n{text}<|im_end|>\n") -> str:
    """A loop over the turns, each written like `user`."""
    before, after = user.split("{text}")
    first, last = before.split("{role}")
    return (
        "{% for m in messages %}" + first + "{{ m.role }}" + last + "{{ m.content }}" + after + "{% endfor %}"
    )  # fmt: skip


TOOLS = "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}{% endfor %}FORM<|im_end|>\n{% endif %}"
HERMES = TOOLS.replace("FORM", "<tool_call></tool_call>")
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\nHEAD{% endif %}"
HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>'
XML_CALL = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>"
)
PAIRS = "<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>"
JSON_CALL = '{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}'
ARGUMENTS = '{"city": "Oslo", "days": 2}'
INVOKE = (
    '<PREinvoke name="weather"><PREparameter name="city" string="true">Oslo</PREparameter>'
    '<PREparameter name="days">2</PREparameter></PREinvoke>'
)


def chatml(head: str, tools: str = HERMES) -> str:
    """The turns of ChatML with this head of the assistant's."""
    return tools + turns() + OPEN.replace("HEAD", head)


QWEN_OFF = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
NEMOTRON_OPEN = (
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>\n{% endif %}"
)
DEEPSEEK = "{% for m in messages %}<｜User｜>{{ m.content }}{% endfor %}{% if tools %}{{ tools }}FORM{% endif %}"
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if tools %}{{ tools }}{% endif %}{% if false %}<|channel|>{{ reasoning_effort }}{% endif %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
HUNYUAN = (
    "{{ messages[-1].content }}{% if tools %}{{ tools }}<tool_calls>[]</tool_calls>{% endif %}"
    "{% if add_generation_prompt %}<|im_end|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n<answer>\n{% endif %}{% endif %}"
)
GEMMA = (
    "{% if enable_thinking is defined and enable_thinking %}<|turn>system\n<|think|><turn|>\n{% endif %}"
    + turns("<|turn>{role}\n{text}<turn|>\n")
    + "{% if tools %}{{ tools }}<|tool_call>call:{% endif %}{% if add_generation_prompt %}<|turn>model\n"
    "{% if not enable_thinking | default(false) %}<|channel>thought\n<channel|>{% endif %}{% endif %}"
)
EFFORT = "{% if reasoning_effort is defined and reasoning_effort != 'none' %}[SETTINGS]high{% endif %}"

FAMILIES: dict[str, Family] = {
    "qwen3": Family(
        "qwen3", "hermes", chatml(QWEN_OFF), "<think>\nso\n</think>\n\n42", HERMES_CALL, "<think>\n\n</think>\n\n",
        switch="enable_thinking",
    ),
    "qwen3-thinking": Family(
        "deepseek-r1", "hermes", chatml("<think>\n"), "so\n</think>\n\n42", HERMES_CALL, "<think>\n\n</think>\n\n",
        head="<think>\n",
    ),
    "qwen3-coder": Family(
        "qwen3", "qwen3_coder", chatml(QWEN_OFF, TOOLS.replace("FORM", "<tool_call><function=f>")),
        "<think>so</think>42", XML_CALL, "<think>\n\n</think>\n\n", switch="enable_thinking",
    ),
    "deepseek-r1": Family(
        "deepseek-r1", "deepseek_v3",
        DEEPSEEK.replace("FORM", "<｜tool▁calls▁begin｜>```json") + "{% if add_generation_prompt %}"
        "<｜Assistant｜><think>\n{% endif %}",
        "so\n</think>\n\n42",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{ARGUMENTS}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<think>\n\n</think>\n\n", head="<think>\n",
        specials=("<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    ),
    "deepseek-v3.1": Family(
        "deepseek-v3", "deepseek_v31",
        DEEPSEEK.replace("FORM", "<｜tool▁calls▁begin｜>")
        + "{% if add_generation_prompt %}<｜Assistant｜>{% if thinking | default(false) %}<think>{% else %}"
        "</think>{% endif %}{% endif %}",
        "42", f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>"
        f"<｜tool▁calls▁end｜>",
        "</think>", head="</think>", thinks=False, switch="thinking",
        specials=("<｜User｜>", "<｜Assistant｜>", "<｜tool▁sep｜>"),
    ),
    "deepseek-v3.2": Family(
        "deepseek-v3", "deepseek_v32",
        DEEPSEEK.replace("FORM", "<｜DSML｜function_calls>")
        + "{% if add_generation_prompt %}<｜Assistant｜>{% if thinking | default(false) %}<think>{% else %}"
        "</think>{% endif %}{% endif %}",
        "42", f"<｜DSML｜function_calls>\n{INVOKE.replace('PRE', '｜DSML｜')}\n</｜DSML｜function_calls>", "</think>",
        head="</think>", thinks=False, switch="thinking", specials=("<｜User｜>", "<｜Assistant｜>", "｜DSML｜"),
    ),
    "gpt-oss": Family(
        "gpt-oss", "harmony", HARMONY,
        "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>42",
        f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
        "<|channel|>final<|message|>", specials=("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|constrain|>"),
    ),
    "gemma4": Family(
        "gemma", "gemma4", GEMMA, "42", '<|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:2}<tool_call|>',
        "<|channel>thought\n<channel|>", head="<|channel>thought\n<channel|>", thinks=False, switch="enable_thinking",
        specials=("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>'),
    ),
    "magistral": Family(
        "mistral", "mistral",
        "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}{% if tools %}"
        "{{ tools }}[TOOL_CALLS]{% endif %}"
        "{% if false %}[THINK][/THINK]{% endif %}",
        "[THINK]so[/THINK]42", f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}", "[THINK][/THINK]",
        specials=("[INST]", "[/INST]", "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]"),
    ),
    "mistral-effort": Family(
        "mistral", "mistral",
        EFFORT + "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}{% if tools %}"
        "{{ tools }}[TOOL_CALLS]{% endif %}"
        "{% if false %}[THINK]{% endif %}",
        "42", f"[TOOL_CALLS][{JSON_CALL}]", "", thinks=False, switch="reasoning_effort",
        specials=("[INST]", "[/INST]", "[THINK]", "[/THINK]", "[TOOL_CALLS]"),
    ),
    "glm": Family(
        "glm", "glm45",
        "[gMASK]<sop>{% if tools %}{{ tools }}<tool_call><arg_key>{% endif %}" + turns("<|{role}|>\n{text}\n")
        + "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
        "\n<think></think>{% endif %}{% endif %}",
        "\n<think>so</think>\n42", f"<tool_call>weather\n{PAIRS}\n</tool_call>", "<think></think>",
        switch="enable_thinking", specials=("<|user|>", "<|assistant|>"),
    ),
    "nemotron-3": Family(
        "nemotron", "qwen3_coder",
        chatml(NEMOTRON_OPEN, TOOLS.replace("FORM", "<tool_call>"
        "<function=f>")) + "{% if truncate_history_thinking %}{% endif %}",
        "so\n</think>\n42", XML_CALL, "<think></think>", head="<think>\n", switch="enable_thinking",
    ),
    "nemotron-words": Family(
        "nemotron", "nemotron",
        "{% set ns = namespace(on=true) %}{% for m in messages %}{% if '/no_think' in m.content %}"
        "{% set ns.on = false %}"
        "{% endif %}{% endfor %}{% if tools %}{{ tools }}<TOOLCALL>[]</TOOLCALL>{% endif %}" + turns()
        + "{% if add_generation_prompt %}<|im_start|>assistant\n{% if ns.on %}<think>\n{% else %}<think>"
        "</think>{% endif %}{% endif %}",
        "so\n</think>\n\n42", f"<TOOLCALL>[{JSON_CALL}]</TOOLCALL>", "<think>"
        "</think>", head="<think>\n", switch="/no_think",
    ),
    "granite": Family(
        "granite", "granite",
        "{% if thinking | default(false) %}"
        "<|im_start|>system\nHere is my thought process: Here is my response:<|im_end|>\n{% endif %}"
        "{% if tools %}{{ tools }}<|tool_call|>{% endif %}" + turns() + OPEN.replace("HEAD", ""),
        "42", f"<|tool_call|>[{JSON_CALL}]", "", thinks=False, switch="thinking", specials=("<|tool_call|>",),
    ),
    "granite-thinking": Family(
        "granite-thinking", "hermes",
        chatml(NEMOTRON_OPEN) + "{% if truncate_history_thinking and defer_loading %}{% endif %}",
        "so\n</think>\n\n42", HERMES_CALL, "<think></think>", head="<think>\n", switch="enable_thinking",
    ),
    "kimi": Family(
        "kimi", "hermes", chatml("{% if false %}◁think▷{% endif %}"), "◁think▷so◁/think▷42", HERMES_CALL,
        "◁think▷◁/think▷",
    ),
    "kimi-k2": Family(
        "kimi-k2", "kimi_k2",
        "{% if tools %}{{ tools }}<|tool_calls_section_begin|>{% endif %}" + turns("<|im_start|>{role}"
        "<|im_middle|>{text}<|im_end|>")
        + "{% if add_generation_prompt %}<|im_start|>assistant<|im_middle|>{% endif %}{% if false %}<think>"
        "</think>{% endif %}",
        "<think>so</think>42",
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{ARGUMENTS}"
        "<|tool_call_end|><|tool_calls_section_end|>",
        "<think></think>", specials=("<|im_middle|>", "<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
    ),
    "hunyuan": Family(
        "hunyuan", "jamba", HUNYUAN, "<think>\nso\n</think>\n<answer>\n42\n</answer>",
        f"<answer>\n<tool_calls>[{JSON_CALL}]</tool_calls>\n</answer>", "<think>\n\n</think>\n"
        "<answer>\n", switch="enable_thinking",
    ),
    "hunyuan-v3": Family(
        "hunyuan-v3", "hy_v3",
        "{% if reasoning_effort is not defined or reasoning_effort not in ['high', 'no_think'] %}"
        "{% set reasoning_effort = 'no_think' %}"
        "{% endif %}" + turns()
        + "{% if tools %}{{ tools }}<tool_calls>{% endif %}{% if false %}<tool_sep>{% endif %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if reasoning_effort == 'high' %}<think>{% else %}<think></think>{% endif %}{% endif %}",
        "42", f"<tool_calls>\n<tool_call>weather<tool_sep>\n{PAIRS}\n</tool_call>\n</tool_calls>", "<think></think>",
        head="<think></think>", thinks=False, switch="reasoning_effort",
    ),
    "seed-oss": Family(
        "seed-oss", "seed_oss",
        "{% if tools %}{{ tools }}<seed:tool_call>{% endif %}" + turns() + "{% if add_generation_prompt %}"
        "<|im_start|>assistant\n"
        "{% if thinking_budget is defined and thinking_budget == 0 %}<seed:think></seed:think>{% endif %}{% endif %}",
        "<seed:think>so</seed:think>42", XML_CALL.replace("tool_call", "seed:tool_call"), "<seed:think></seed:think>",
        switch="thinking_budget", specials=("<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"),
    ),
    "minimax": Family(
        "deepseek-r1", "minimax_m2", chatml("<think>\n", TOOLS.replace("FORM", "<minimax:tool_call>")),
        "so\n</think>\n\n42", f"<minimax:tool_call>\n{INVOKE.replace('PRE', '')}\n</minimax:tool_call>",
        "<think>\n\n</think>\n\n", head="<think>\n",
    ),
    "generic-switch": Family(
        "generic", "hermes",
        chatml("{% if enable_thinking is defined and not enable_thinking %}<muse>\n</muse>\n{% else %}"
        "<muse>\n{% endif %}"),
        "so\n</muse>\n42", HERMES_CALL, "<muse>\n</muse>\n", head="<muse>\n", switch="enable_thinking",
    ),
    "generic-history": Family(
        "generic", "hermes",
        HERMES + "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<muse>\n"
        "{{ m.reasoning_content }}\n</muse>\n"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN.replace("HEAD", ""),
        "<muse>\nso\n</muse>\n42", HERMES_CALL, "<muse>\n\n</muse>\n\n",
    ),
    "llama3": Family(
        None, "llama3_json",
        "{% if tools %}Environment: ipython\n{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
        "{% if false %}\"parameters\"{% endif %}"
        + turns() + OPEN.replace("HEAD", ""),
        "42", '{"name": "weather", "parameters": {"city": "Oslo", "days": 2}}', "", thinks=False,
    ),
    "llama-pythonic": Family(
        None, "pythonic",
        "{% if tools %}[func_name(params_name1=params_value1)]{{ tools }}{% endif %}"
        "{% if false %}(params_name1={% endif %}"
        + turns() + OPEN.replace("HEAD", ""),
        "42", '[weather(city="Oslo", days=2)]', "", thinks=False,
    ),
    "lfm2": Family(
        None, "lfm2", "{% if tools %}{{ tools }}<|tool_call_start|>{% endif %}" + turns() + OPEN.replace("HEAD", ""),
        "42", '<|tool_call_start|>[weather(city="Oslo", days=2)]<|tool_call_end|>', "", thinks=False,
        specials=("<|tool_call_start|>", "<|tool_call_end|>"),
    ),
    "gemma3": Family(
        None, "gemma",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% if tools %}"
        "{{ tools }}```tool_code{% endif %}"
        + turns() + OPEN.replace("HEAD", ""),
        "42", '```tool_code\nweather(city="Oslo", days=2)\n```', "", thinks=False,
    ),
    "functiongemma": Family(
        None, "functiongemma", "{% if tools %}{{ tools }}<start_function_call>"
        "{% endif %}" + turns() + OPEN.replace("HEAD", ""),
        "42", "<start_function_call>call:weather{city:<escape>Oslo<escape>,days:2}"
        "<end_function_call>", "", thinks=False,
    ),
    "phi4-mini": Family(
        None, "phi4_mini_json", "{% if tools %}{{ tools }}functools{% endif %}" + turns() + OPEN.replace("HEAD", ""),
        "42", f"functools[{JSON_CALL}]", "", thinks=False,
    ),
    "olmo3": Family(
        None, "olmo3", "{% if tools %}{{ tools }}<function_calls>{% endif %}" + turns() + OPEN.replace("HEAD", ""),
        "42", '<function_calls>\nweather(city="Oslo", days=2)\n</function_calls>', "", thinks=False,
    ),
    "smollm": Family(None, "hermes", turns() + OPEN.replace("HEAD", ""), "42", HERMES_CALL, "", thinks=False),
}  # fmt: skip
