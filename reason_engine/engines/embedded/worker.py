"""The worker: a loop that takes messages, steps the scheduler and sends what came of it. In a thread or a process.

`python -m reason_engine.engines.embedded.worker` is the process: messages on standard input and output, framed as
`messages` says. It trusts its parent, and ends when its parent's end of the pipe closes.
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

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.embedded import messages
from reason_engine.engines.embedded.grammar import Grammars, Matcher
from reason_engine.engines.embedded.messages import FromWorker, Generate, Inbox, WorkerConfig
from reason_engine.engines.text import Vocabulary
from reason_engine.errors import ReasonError, RequestError

INDEX_TOKENS = 1000
"""Of the texts to draft from, indexed between two looks at the inbox."""


class Worker:
    """One model and its loop. `inbox` may be fed from any thread."""

    def __init__(self, config: WorkerConfig, inbox: Inbox, send: Callable[[FromWorker], None]) -> None:
        self.config, self.inbox, self.send = config, inbox, send

    def run(self) -> None:
        """Load, then serve until told to stop. Everything that ends it early is sent as Failed."""
        try:
            import torch

            with torch.inference_mode():
                self._load()
                self._loop()
        except ReasonError as error:
            self.send(messages.Failed(error))
        except Exception as error:  # boundary: whatever stops the loop ends this engine
            traceback.print_exc()
            self.send(messages.Failed(RuntimeError(f"{type(error).__name__}: {error}")))

    def _load(self) -> None:
        import torch

        from reason_engine.engines.embedded.model.loading import load_decoder
        from reason_engine.engines.embedded.scheduler import Scheduler
        from reason_engine.engines.embedded.scoring import TextScorer, load_heads

        config, folder = self.config, Path(self.config.path)
        chat = ChatFormat.load(folder)
        decoder = load_decoder(
            folder, dtype=config.dtype, device=config.device, threads=config.threads, weights=config.weights
        )
        self.output = messages.OutputBuffer(self.send, config.coalesce_seconds)
        self.scheduler = Scheduler(decoder, Vocabulary(chat.tokenizer, config.shown), chat.eos_ids, self.output, config)
        self.grammars = Grammars(chat.tokenizer, decoder.shape.vocab, chat.eos_ids)
        heads, limit = load_heads(config.rewards, decoder), self.scheduler.prefill_tokens
        self.scorer = TextScorer(heads, self.scheduler.prefixes, self.output, limit)
        self._compiling: dict[str, list[int]] = {}
        """Requests whose constraint is being compiled, with the samples that were aborted meanwhile."""
        self._indexing: list[str] = []
        dtype = str(decoder.dtype).removeprefix("torch.")
        chosen = (torch.get_num_threads(), dtype, str(decoder.device), decoder.precision, decoder.notes)
        self.send(messages.Ready(*chosen))

    def _loop(self) -> None:
        while True:
            while True:
                try:
                    message = self.inbox.get(block=not (self._busy or self._indexing))
                except Empty:
                    break
                if isinstance(message, messages.Stop):
                    return
                self._handle(message)
                if not self._busy:
                    self._flush()
            if self.scorer.pending:
                self.scorer.step()
            if self.scheduler.busy:
                self.scheduler.step()
            self._flush()
            if self._indexing and not self._busy:
                self._index_texts()

    def _index_texts(self) -> None:
        """Index some of the texts to draft from; nothing else is to be done."""
        queue = self.scheduler.drafting.corpus_queue
        queue.advance(INDEX_TOKENS)
        if not queue:
            for identity in self._indexing:
                self.output.add_result(identity)
            self._indexing.clear()
            self._flush()

    @property
    def _busy(self) -> bool:
        return bool(self.scorer.pending) or self.scheduler.busy

    def _flush(self) -> None:
        scheduler, failures = self.scheduler, self.scheduler.drafting.failures
        self.output.flush(scheduler.running, scheduler.waiting, now=not self._busy, draft_failures=failures)

    def _handle(self, message: Generate | messages.Query | messages.Abort | Callable[[], None]) -> None:
        if callable(message):
            return message()
        try:
            match message:
                case Generate():
                    if message.sampling.structured is not None:
                        self._compile(message)
                    else:
                        self.scheduler.start(message)
                case messages.Choose():
                    self.scheduler.choose(message)
                case messages.ScoreTexts():
                    self.scorer.add(message)
                case messages.Abort():
                    self._abort(message.id, message.index)
                case messages.LoadAdapter():
                    used, weights = self.scheduler.used_adapters, self.scheduler.decoder.weights
                    self.scheduler.adapters.load(message.name, Path(message.path), weights, used)
                    self.output.add_result(message.id)
                case messages.UnloadAdapter():
                    self.scheduler.adapters.unload(message.name, self.scheduler.used_adapters)
                    self.output.add_result(message.id)
                case messages.ReplaceWeights():
                    if self._busy or self._compiling:
                        raise RequestError("weights are taken only while nothing runs")
                    self.scheduler.replace_weights(message)
                    self.output.add_result(message.id)
                case messages.DraftFrom():
                    self.scheduler.drafting.draft_from(message.texts)
                    self._indexing.append(message.id)
        except ReasonError as error:
            self.output.add_error(message.id, error)

    def _abort(self, request_id: str, index: int | None) -> None:
        if request_id in self._compiling and index is not None:
            self._compiling[request_id].append(index)
        elif request_id in self._compiling:
            del self._compiling[request_id]
            self.output.add_error(request_id, RequestError("aborted while its constraint was compiled"))
        self.scorer.abort(request_id)
        self.scheduler.abort(request_id, index)

    def _compile(self, request: Generate) -> None:
        """Compile the constraint beside the loop; whichever comes first, the result or the limit, decides. What is made
        of the vocabulary once for all constraints is no part of it."""
        self._compiling[request.id] = []

        def work() -> None:
            try:
                self.grammars.prepare()
                timer.start()
                assert request.sampling.structured is not None
                made: Matcher | ReasonError = self.grammars.compile(request.sampling.structured)
            except ReasonError as error:
                made = error
            timer.cancel()
            self.inbox.put(lambda: self._compiled(request, made))

        limit = self.config.compile_seconds
        message = f"the constraint took more than {limit:g} s to compile"
        late = RequestError(message, param="response_format", code="invalid_schema")
        timer = threading.Timer(limit, self.inbox.put, [lambda: self._compiled(request, late)])
        timer.daemon = True
        threading.Thread(target=work, daemon=True).start()

    def _compiled(self, request: Generate, made: Matcher | ReasonError) -> None:
        if request.id not in self._compiling:
            return
        aborted = self._compiling.pop(request.id)
        try:
            if isinstance(made, ReasonError):
                raise made
            self.scheduler.start(request, made)
        except ReasonError as error:
            self.output.add_error(request.id, error)
        for index in aborted:
            self.scheduler.abort(request.id, index)


def main() -> None:
    """The process's life: the first message is its WorkerConfig."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: Inbox = SimpleQueue()

    def receive() -> object:
        head = reading.read(4)
        if len(head) < 4:
            os._exit(0)
        return pickle.loads(reading.read(struct.unpack("<I", head)[0]))

    config = receive()
    assert isinstance(config, WorkerConfig)

    def listen() -> None:
        while True:
            inbox.put(receive())  # pyright: ignore[reportArgumentType]

    threading.Thread(target=listen, daemon=True).start()

    def send(message: FromWorker) -> None:
        try:
            writing.write(messages.frame(message))
            writing.flush()
        except OSError:
            os._exit(0)

    Worker(config, inbox, send).run()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
