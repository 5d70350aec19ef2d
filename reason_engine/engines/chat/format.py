"""Tokenizer and conversation format of a checkpoint: prompts rendered, texts split again. Never imports torch.

Everything that differs between models is found when it is loaded: marks of thoughts and their switch (`detection`,
`switches`), the form of tool calls (`tool_detection`), what the template refuses (`template`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from tokenizers import Tokenizer

from reason_engine.contracts import Parsed
from reason_engine.engines.chat.call_readers import Call
from reason_engine.engines.chat.detection import Evidence, find_thought
from reason_engine.engines.chat.harmony import read_messages
from reason_engine.engines.chat.parsers import AS_FOUND, Parsers
from reason_engine.engines.chat.prompting import ASKED, Prompting
from reason_engine.engines.chat.special_tokens import end_ids, token_text
from reason_engine.engines.chat.switches import find_switch
from reason_engine.engines.chat.template import PLAIN, Template, stored_template
from reason_engine.engines.chat.thoughts import HARMONY, Thought, tags
from reason_engine.engines.chat.tool_detection import find_format
from reason_engine.engines.checkpoint.checkpoint import checkpoint_at
from reason_engine.errors import ModelLoadError
from reason_engine.types import Message, ModelInfo, ToolCall


class ChatFormat:
    """How a model is spoken to, and what it wrote.

    `eos_ids` end a generation. `thinks`: the model reasons by itself under the template's default. `shown`: control
    tokens whose text must stay in what is generated, since it is split by them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source: str | None,
        config: Mapping[str, Any],
        eos_ids: frozenset[int],
        parsers: Parsers = AS_FOUND,
    ) -> None:
        self.tokenizer, self.eos_ids = tokenizer, eos_ids
        tokens = {key: token_text(config.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
        self.specials = tuple(t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special)
        self._bos_ids = tuple(tokenizer.encode("", add_special_tokens=True).ids)
        self.templated = source is not None
        template = Template(PLAIN if source is None else source, tokens)
        response: Any = config.get("response_template")
        response = response if isinstance(response, Mapping) else {}
        self._prompting = asked = Prompting(template)
        switch = find_switch(template, asked.probe)
        has = tokenizer.token_to_id
        evidence = Evidence(template, lambda text: has(text) is not None, asked.probe, ASKED, switch, response)
        self._thought = find_thought(evidence, parsers.reasoning)
        self._calls = find_format(template.source, response, parsers.tools)
        self._switch = None if self._thought.thought is HARMONY else switch
        self._splits = self._thought.thought or (None if parsers.reasoning else tags("begun by the model itself"))
        marks = (*(self._splits.marks if self._splits else ()), *self._calls.format.marks)
        ends = {tokenizer.id_to_token(i) for i in eos_ids}
        self.shown = frozenset(s for s in self.specials if s not in ends and any(s in mark for mark in marks))
        borders = [re.escape(s) for s in self.specials if not any(s in mark for mark in marks)]
        self._border = re.compile("|".join(borders)) if borders else None
        self._header = _before_marks(evidence.head, self._splits)
        self.thinks = self._thinks_by_default(evidence.head)

    @classmethod
    def load(cls, path: Path, parsers: Parsers = AS_FOUND) -> ChatFormat:
        """Read a folder or a file. Raises ModelLoadError naming the file at fault, SetupError for unknown parsers."""
        files = checkpoint_at(path)
        tokenizer = files.tokenizer()
        config = files.read_json("tokenizer_config.json", missing={})
        try:
            return cls(tokenizer, stored_template(files, config), config, end_ids(files, tokenizer, config), parsers)
        except TemplateSyntaxError as error:
            raise ModelLoadError(f"{path}: chat template, line {error.lineno}: {error.message}") from None

    def info(self, name: str, path: str, context: int, fingerprint: str) -> ModelInfo:
        """The description of a model that has this format."""
        thought, calls, asked = self._splits or tags("none"), self._calls.format, self._prompting
        start = thought.start if self._splits else ""
        return ModelInfo(
            name, path, context, self.thinks, start, thought.end, thought.cut, calls.start, fingerprint,
            self.specials, think_on_request=self._thought.thought is not None, think_exit=thought.leave,
            answer_starts=thought.answer_starts, answer_end=thought.answer_end, tool_opening=calls.opening,
            tool_end=calls.end, system_role=asked.system_role, found=self.found,
        )  # fmt: skip

    @property
    def single_tokens(self) -> frozenset[str]:
        """The marks of thoughts that are one token each."""
        marks = self._splits.marks if self._splits else ()
        return frozenset(mark for mark in marks if mark and self.tokenizer.token_to_id(mark) is not None)

    @property
    def report(self) -> dict[str, str]:
        """What was found and by which rule, what the model takes and what it lacks, by subject."""
        asked, calls, ends = self._prompting, self._calls, sorted(self.eos_ids)
        taken = (
            "taken" if asked.system_role else "refused or dropped by the template: its text begins the first user turn"
        )
        known = ", ".join(f"{self.tokenizer.id_to_token(i)} ({i})" for i in ends)
        return {
            "thoughts": self._how_it_thinks(),
            "tool calls": f"{calls.format.name} ({calls.rule}); the template {asked.tools} tools",
            "system turn": taken,
            "chat template": "found" if self.templated else "none: turns are written as plain text to be continued",
            "end of text": known or "no token is known: answers end at their limit or a stop string",
        }

    @property
    def found(self) -> tuple[str, ...]:
        """How it thinks and calls tools, and what it lacks, a line each."""
        report, lacks = self.report, list[str]()
        lacks += [] if self._prompting.system_role else ["system turn"]
        lacks += [] if self.templated else ["chat template"]
        lacks += [] if self.eos_ids else ["end of text"]
        return tuple(f"{subject}: {report[subject]}" for subject in ("thoughts", "tool calls", *lacks))

    def _how_it_thinks(self) -> str:
        thought, rule = self._thought.thought, self._thought.rule
        if thought is None:
            return f"none ({rule})"
        default = "on" if self.thinks else "off"
        how = f"{default} by default, switched by {self._switch.name}" if self._switch else f"always {default}"
        return f"{thought.name}, {thought.start} … {thought.end} ({rule}); {how}"

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
        """The prompt text, generation mark included unless `closed`, then `prefill`. With `think` False it never ends
        inside a thought, nor where one would begin. Raises RequestError where the template refuses."""
        names: dict[str, Any] = {} if think is None else {"enable_thinking": think, "thinking": think}
        turns = self._prompting.turns(messages)
        if self._switch and think is not None:
            names |= self._switch.names(think)
            turns = self._switch.spoken(turns, think)
        text = self._prompting.render(turns, tools=tools, names=names, open=not closed)
        if think is False and not closed:
            text += self._shut(self._turn(text))
        return text + prefill

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        """Split a finished text into reasoning, content and tool calls. `prompt` tells whether thinking was opened."""
        turn, form = self._turn(prompt), self._calls.format
        if self._thought.thought is HARMONY or form.name == "harmony":
            read = read_messages(text, turn)
            return Parsed(read.content, read.reasoning, _numbered(read.calls, prompt, text))
        if self._splits is None:
            reasoning, content = None, text
        else:
            reasoning, content = self._splits.split(text, turn=turn, asked=bool(prompt), thinks=self.thinks)
        calls, rest = form.extract(content, prompt=prompt)
        if not calls and reasoning and not content and not form.bare:  # a call ends a thought as well
            calls, reasoning = form.extract(reasoning)
        return Parsed(rest, reasoning or None, _numbered(calls, prompt, content))

    def opened(self, prompt: str) -> bool:
        """Whether this prompt's last turn, the assistant's, ends inside an open thought."""
        return self._splits is not None and self._splits.opened(self._turn(prompt))

    def _turn(self, prompt: str) -> str:
        """The last turn of a prompt, after its header: what marks mean in earlier ones is the users' business."""
        ends = [found.end() for found in self._border.finditer(prompt)] if self._border else []
        begin = ends[-1] if ends else 0
        at = prompt.rfind(self._header) if self._header else -1
        return prompt[max(begin, at + len(self._header) if at >= 0 else 0) :]

    def _shut(self, turn: str) -> str:
        """What is still to be written so that the answer comes next."""
        thought = self._thought.thought
        if thought is None:
            return ""
        if thought.opened(turn):
            return thought.leave
        always = self.thinks and (self._switch is None or self._switch.default is None)
        return thought.omitted if always and thought.end not in turn and not turn.endswith(thought.omitted) else ""

    def _thinks_by_default(self, head: str) -> bool:
        """A template that ends an empty thought by default, or whose switch is off, belongs to a model that answers
        at once."""
        thought = self._thought.thought
        if thought is None:
            return False
        turn = self._turn(head)
        if thought.opened(turn):
            return True
        if thought.end in turn:
            return False
        return self._switch is None or self._switch.default is not False


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


def _numbered(calls: Sequence[Call], prompt: str, text: str) -> tuple[ToolCall, ...]:
    """Calls with names of their own, the same for the same text."""
    marks = [sha256(f"{prompt}\0{text}\0{at}".encode(errors="replace")).hexdigest()[:24] for at in range(len(calls))]
    return tuple(ToolCall(f"call_{mark}", *call) for mark, call in zip(marks, calls, strict=True))


def _before_marks(head: str, thought: Thought | None) -> str:
    """The header of the assistant's turn: what stands before any mark of a thought."""
    marks = (thought.start, thought.end, thought.omitted) if thought else ()
    places = [at for mark in marks if mark and (at := head.find(mark)) >= 0]
    return head[: min(places, default=len(head))].rstrip()
