"""How one checkpoint speaks: tokenizer, chat template, reasoning and tool-call parsing. Never imports torch.

The template runs in Jinja's immutable sandbox with the names that Hugging Face templates expect (`raise_exception`,
`strftime_now`, `tojson`, `{% generation %}`, loop controls). Reasoning stands between `<think>` and `</think>`; tool
calls are JSON between `<tool_call>` and `</tool_call>` (the Hermes convention, also Qwen's).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, cast

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.ext import loopcontrols as LoopControls
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from reason_engine.contracts import Parsed
from reason_engine.engines.checkpoint.folder import CONFIG, ModelFolder, read_text
from reason_engine.errors import ModelLoadError, RequestError
from reason_engine.types import Message, ModelInfo, ToolCall


class ChatFormat:
    """Tokenizer and conversation format of a checkpoint folder.

    `eos_ids` end a generation. `thinks` tells whether the model reasons by itself under the template's default.
    """

    think_start, think_end = "<think>", "</think>"

    def __init__(self, tokenizer: Tokenizer, template: str, config: Mapping[str, Any], eos_ids: frozenset[int]) -> None:
        self.tokenizer, self.eos_ids = tokenizer, eos_ids
        self._tokens = {key: _text(config.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
        specials = [t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special]
        self.specials = tuple(specials)
        self._special = re.compile("|".join(map(re.escape, specials))) if specials else None
        self._developer = "developer" in template
        self._template = _environment().from_string(template)
        self._bos_ids = tuple(tokenizer.encode("", add_special_tokens=True).ids)
        self.thinks = self.think_end in template and self._thinks_by_default()

    @classmethod
    def load(cls, folder: Path) -> ChatFormat:
        """Read a checkpoint folder. Raises ModelLoadError naming the file at fault."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelLoadError(f"{path}: not found; only checkpoints with a fast tokenizer can be served")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ModelLoadError(f"{path}: {error}") from None
        config = ModelFolder(folder).read_json("tokenizer_config.json", missing={})
        try:
            return cls(tokenizer, _find_template(folder, config), config, _eos_ids(folder, tokenizer, config))
        except TemplateSyntaxError as error:
            raise ModelLoadError(f"{folder}: chat template, line {error.lineno}: {error.message}") from None

    def info(self, name: str, path: str, context: int, fingerprint: str) -> ModelInfo:
        """The description of a model that has this format."""
        thinks = (self.thinks, self.think_start, self.think_end)
        return ModelInfo(name, path, context, *thinks, fingerprint=fingerprint, specials=self.specials)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a prompt, with the beginning-of-sequence token the model was trained with, never twice."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        bos = self._bos_ids
        return ids if not bos or tuple(ids[: len(bos)]) == bos else [*bos, *ids]

    def tokenize_bare(self, text: str) -> list[int]:
        """Token ids of a continuation: nothing is put before it."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, special tokens included."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
        closed: bool = False,
    ) -> str:
        """The prompt text, generation mark included unless `closed`, then `prefill`. Raises RequestError where the
        template refuses."""
        names: dict[str, Any] = {**self._tokens, "tools": list(tools) or None, "add_generation_prompt": not closed}
        if think is not None:
            names |= {"enable_thinking": think, "thinking": think}
        try:
            text = self._template.render(
                messages=[self._as_dict(m) for m in messages],
                raise_exception=_raise,
                strftime_now=lambda form: datetime.now().strftime(form),
                **names,
            )
        except (TemplateError, TypeError, ValueError, OverflowError, ArithmeticError) as error:
            raise RequestError(f"the model's chat template refused the messages: {error}", param="messages") from None
        return text + prefill

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        """Split a finished text into reasoning, content and tool calls. `prompt` tells whether thinking was opened."""
        reasoning, content = self._split(text, self.opened(prompt))
        calls, content = _tool_calls(content, prompt)
        return Parsed(content, reasoning, calls)

    def opened(self, prompt: str) -> bool:
        """Whether this prompt's last turn, the assistant's, ends inside an open thinking block."""
        ends = [found.end() for found in self._special.finditer(prompt)] if self._special else []
        tail = prompt[ends[-1] :] if ends else prompt
        return tail.rfind(self.think_start) > tail.rfind(self.think_end)

    def _split(self, text: str, opened: bool) -> tuple[str | None, str]:
        begins = text.lstrip().startswith(self.think_start)
        body = text.lstrip().removeprefix(self.think_start) if begins else text
        if not (opened or begins or (self.thinks and self.think_end in text)):
            return None, text
        reasoning, closed, content = body.partition(self.think_end)
        return reasoning.strip() or None, content.lstrip("\n") if closed else ""

    def _thinks_by_default(self) -> bool:
        """A template that closes an empty thinking block by default belongs to a model that answers at once."""
        try:
            prompt = self.render_chat([Message("user", "?")])
        except RequestError:
            return True
        return not prompt.rstrip().endswith(self.think_end)

    def _as_dict(self, message: Message) -> dict[str, Any]:
        role = "system" if message.role == "developer" and not self._developer else message.role
        out: dict[str, Any] = {"role": role, "content": message.content}
        if message.reasoning is not None:
            out["reasoning_content"] = message.reasoning
        if message.tool_calls:
            out["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _arguments(c.arguments)}}
                for c in message.tool_calls
            ]
        others = {"tool_call_id": message.tool_call_id, "name": message.name}
        return out | {key: value for key, value in others.items() if value is not None}


class ChatTextMethods:
    """The methods of an engine that its checkpoint's format answers alone."""

    _format: ChatFormat

    def tokenize(self, text: str) -> list[int]:
        return self._format.tokenize(text)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return self._format.detokenize(token_ids)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        return self._format.render_chat(messages, tools=tools, think=think, prefill=prefill)

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        return self._format.parse(text, prompt=prompt)


def _tool_calls(text: str, prompt: str) -> tuple[tuple[ToolCall, ...], str]:
    """The well-formed calls, and the text without them; a malformed call stays in the text."""
    calls: list[ToolCall] = []

    def take(found: re.Match[str]) -> str:
        try:
            call = json.loads(found[1])
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return found[0]
        if not isinstance(name, str):
            return found[0]
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        mark = sha256(f"{prompt}\0{text}\0{len(calls)}".encode(errors="replace")).hexdigest()[:24]
        calls.append(ToolCall(f"call_{mark}", name, written))
        return ""

    rest = re.sub(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)", take, text, flags=re.DOTALL)
    return tuple(calls), rest.strip() if calls else text


def _find_template(folder: Path, config: Mapping[str, Any]) -> str:
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    stored: Any = config.get("chat_template")
    if stored is None:
        stored = ModelFolder(folder).read_json("chat_template.json", missing={}).get("chat_template")
    if isinstance(stored, list):
        named = {e.get("name"): e.get("template") for e in cast("list[dict[str, Any]]", stored)}
        stored = named.get("default")
    return stored if isinstance(stored, str) else PLAIN


def _eos_ids(folder: Path, tokenizer: Tokenizer, config: Mapping[str, Any]) -> frozenset[int]:
    files = ModelFolder(folder)
    model = files.read_json(CONFIG, missing={})
    stored: Any = files.read_json("generation_config.json", missing={}).get("eos_token_id", model.get("eos_token_id"))
    ids: list[Any] = stored if isinstance(stored, list) else [stored]
    ids.append(tokenizer.token_to_id(_text(config.get("eos_token"))))
    return frozenset(i for i in ids if isinstance(i, int))


def _text(token: Any) -> str:
    """A special token is stored as its text or as a description of it."""
    if isinstance(token, Mapping):
        return str(cast("Mapping[str, Any]", token).get("content", ""))
    return token if isinstance(token, str) else ""


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _raise(message: str) -> None:
    raise TemplateError(message)


PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks what a model is trained on; rendering keeps its body."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """The sandbox with the filters and tags that templates use."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControls])
    made.filters["tojson"] = _to_json
    return made


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, which Jinja's own filter would add."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
