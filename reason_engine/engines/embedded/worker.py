"""The worker: a loop that takes messages, steps the scheduler and sends what came of it. In a thread or a process.

`python -m reason_engine.engines.embedded.worker` is the process: messages on standard input and output, each 4 bytes of
length and a pickle. It trusts its parent, and ends when its parent's end of the pipe closes.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO

from reason_engine.engines.chat.template import ChatFormat
from reason_engine.engines.embedded.grammar import Grammars, Matcher
from reason_engine.engines.embedded.messages import (
    Abort,
    Choose,
    Config,
    DraftFrom,
    Failed,
    FromWorker,
    LoadAdapter,
    Rate,
    Start,
    Stop,
    TakeWeights,
    ToWorker,
    UnloadAdapter,
)
from reason_engine.errors import ReasonError, RequestError

STUDY_TOKENS = 1000
"""Of the texts to draft from, between two looks at the inbox."""

Send = Callable[[FromWorker], None]


class Worker:
    """One model and its loop. `inbox` may be fed from any thread."""

    def __init__(self, config: Config, inbox: SimpleQueue[ToWorker | Callable[[], None]], send: Send) -> None:
        self.config, self.inbox, self.send = config, inbox, send

    def run(self) -> None:
        """Load, then serve until told to stop. Everything that ends it early is sent as Failed."""
        try:
            import torch

            with torch.inference_mode():
                self._load()
                self._loop()
        except ReasonError as error:
            self.send(Failed(error))
        except Exception as error:  # boundary: whatever stops the loop ends this engine
            traceback.print_exc()
            self.send(Failed(RuntimeError(f"{type(error).__name__}: {error}")))

    def _load(self) -> None:
        from reason_engine.engines.embedded.loading import build
        from reason_engine.engines.embedded.rows import Outbox
        from reason_engine.engines.embedded.scoring import Rater, load_heads

        chat = ChatFormat.load(Path(self.config.path))
        self.outbox = Outbox(self.send, self.config.coalesce_seconds)
        self.scheduler, ready = build(self.config, chat, self.outbox)
        self.grammars = Grammars(chat.tokenizer, self.scheduler.decoder.shape.vocab, chat.eos_ids)
        heads = load_heads(self.config.rewards, self.scheduler.decoder)
        self.rater = Rater(
            heads,
            self.scheduler.decoder,
            self.scheduler.prefixes,
            self.outbox,
            self.scheduler.prefill_tokens,
        )
        self._compiling: dict[str, list[int]] = {}
        self._studying: list[str] = []
        self.send(ready)

    def _loop(self) -> None:
        while True:
            while True:
                try:
                    message = self.inbox.get(block=not (self._busy or self._studying))
                except Empty:
                    break
                if isinstance(message, Stop):
                    return
                self._handle(message)
                if not self._busy:
                    self._flush()
            if self.rater.busy:
                self.rater.step()
            if self.scheduler.busy:
                self.scheduler.step()
            self._flush()
            if self._studying and not self._busy:
                self._study()

    def _study(self) -> None:
        """Take in some of the texts to draft from; nothing else is to be done."""
        study = self.scheduler.drafting.study
        study.go_on(STUDY_TOKENS)
        if not study:
            for identity in self._studying:
                self.outbox.result(identity)
            self._studying.clear()
            self._flush()

    @property
    def _busy(self) -> bool:
        return self.scheduler.busy or self.rater.busy

    def _flush(self) -> None:
        failures = self.scheduler.drafting.failures
        self.outbox.flush(
            self.scheduler.running, self.scheduler.waiting, now=not self._busy, failures=failures
        )

    def _handle(self, message: ToWorker | Callable[[], None]) -> None:
        try:
            match message:
                case Start(sampling=sampling) if sampling.structured is not None:
                    self._compile(message)
                case Start():
                    self.scheduler.start(message)
                case Choose():
                    self.scheduler.choose(message)
                case Rate():
                    self.rater.add(message)
                case Abort():
                    if message.id in self._compiling and message.index is not None:
                        self._compiling[message.id].append(message.index)
                    elif message.id in self._compiling:
                        del self._compiling[message.id]
                        self.outbox.error(
                            message.id, RequestError("aborted while its constraint was compiled")
                        )
                    self.rater.abort(message.id)
                    self.scheduler.abort(message.id, message.index)
                case LoadAdapter():
                    self.scheduler.adapters.load(
                        message.name, Path(message.path), self.scheduler.used_adapters
                    )
                    self.outbox.result(message.id)
                case UnloadAdapter():
                    self.scheduler.adapters.unload(message.name, self.scheduler.used_adapters)
                    self.outbox.result(message.id)
                case TakeWeights():
                    self._take_weights(message)
                case DraftFrom():
                    self.scheduler.drafting.draft_from(message.texts)
                    self._studying.append(message.id)
                case Stop():
                    pass
                case _:
                    message()
        except ReasonError as error:
            self.outbox.error(getattr_id(message), error)

    def _take_weights(self, message: TakeWeights) -> None:
        from reason_engine.engines.embedded.loading import renew

        if self._busy or self._compiling:
            raise RequestError("weights are taken only while nothing runs")
        renew(self.scheduler, message.tensors)
        self.outbox.result(message.id)

    def _compile(self, request: Start) -> None:
        """Compile the constraint beside the loop; whichever comes first, the result or the limit, decides."""
        self._compiling[request.id] = []

        def work() -> None:
            try:
                assert request.sampling.structured is not None
                made: Matcher | ReasonError = self.grammars.compile(request.sampling.structured)
            except ReasonError as error:
                made = error
            self.inbox.put(lambda: self._compiled(request, made))

        def late() -> None:
            limit = self.config.compile_seconds
            error = RequestError(
                f"the constraint took more than {limit:g} s to compile",
                param="response_format",
                code="invalid_schema",
            )
            self.inbox.put(lambda: self._compiled(request, error))

        timer = threading.Timer(self.config.compile_seconds, late)
        timer.daemon = True
        timer.start()
        threading.Thread(target=lambda: (work(), timer.cancel()), daemon=True).start()

    def _compiled(self, request: Start, made: Matcher | ReasonError) -> None:
        if request.id not in self._compiling:
            return
        left = self._compiling.pop(request.id)
        if isinstance(made, ReasonError):
            self.outbox.error(request.id, made)
            return
        self.scheduler.start(request, made)
        for index in left:
            self.scheduler.abort(request.id, index)


def getattr_id(message: ToWorker | Callable[[], None]) -> str:
    return message.id if not isinstance(message, Stop) and not callable(message) else ""


def write(stream: BinaryIO, message: object) -> None:
    """One framed message."""
    data = pickle.dumps(message, protocol=5)
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


def main() -> None:
    """The process's life: the first message is its Config."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: SimpleQueue[ToWorker | Callable[[], None]] = SimpleQueue()

    def receive() -> object:
        head = reading.read(4)
        if len(head) < 4:
            os._exit(0)
        return pickle.loads(reading.read(struct.unpack("<I", head)[0]))

    config = receive()
    assert isinstance(config, Config)

    def listen() -> None:
        while True:
            inbox.put(receive())  # pyright: ignore[reportArgumentType]

    threading.Thread(target=listen, daemon=True).start()

    def send(message: FromWorker) -> None:
        try:
            write(writing, message)
        except OSError:
            os._exit(0)

    Worker(config, inbox, send).run()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
