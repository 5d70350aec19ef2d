"""vLLM's two ways of running behind one shape: AsyncLLM, and LLMEngine stepped by a thread of this process.

AsyncLLM always runs the model in another process, which on a small CPU host costs half a minute at start; the thread
costs seconds. Both number requests by the caller's ids and end a stream when its request was aborted.

Both have: `start(arguments)`, which loads the model, returns the context length and raises what vLLM raises;
`generate(id, prompt, params, lora=…, priority=…)` with the prompt's ids, a SamplingParams and a LoRARequest or None,
which yields RequestOutput in deltas; `generated`, a count of every token that came out; and `check`, which raises
EngineDead where vLLM has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from reason_engine.engines.vllm.release import vllm_module
from reason_engine.errors import EngineDead

R = TypeVar("R")


class ProcessBackend:
    """AsyncLLM: the model in processes of its own, also over many devices and machines."""

    def __init__(self) -> None:
        self.generated = 0
        self._llm: Any = None

    async def start(self, arguments: dict[str, Any]) -> int:
        def build() -> Any:
            made = _engine_args("AsyncEngineArgs", arguments)
            return vllm_module("v1.engine.async_llm").AsyncLLM.from_engine_args(made)

        # in a thread, so that the loop goes on answering while the weights are loaded
        self._llm = await asyncio.to_thread(build)
        return self._llm.model_config.max_model_len

    async def generate(
        self, id: str, prompt: list[int], params: Any, *, lora: Any, priority: int
    ) -> AsyncGenerator[Any]:
        tokens = vllm_module("inputs").TokensPrompt(prompt_token_ids=prompt)
        stream = self._llm.generate(tokens, params, id, lora_request=lora, priority=priority)
        try:
            async for output in stream:
                self.generated += sum(len(sample.token_ids) for sample in output.outputs)
                yield output
        finally:
            await stream.aclose()

    async def abort(self, id: str) -> None:
        await self._llm.abort(id)

    async def add_lora(self, lora: Any) -> None:
        await self._llm.add_lora(lora)

    async def remove_lora(self, number: int) -> None:
        await self._llm.remove_lora(number)

    @property
    def config(self) -> Any:
        """What vLLM resolved its arguments to."""
        return self._llm.vllm_config

    def unfinished(self) -> int:
        return self._llm.output_processor.get_num_unfinished_requests() if self._llm else 0

    def check(self) -> None:
        if self._llm is None or self._llm.errored:
            raise EngineDead("vLLM's engine process has ended")

    async def close(self) -> None:
        """The last reference goes too: vLLM's finaliser fails in an interpreter that is shutting down."""
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)


class ThreadBackend:
    """LLMEngine, stepped by one daemon thread. All calls to it run on that thread, between two steps."""

    def __init__(self) -> None:
        self.generated = 0
        self._llm: Any = None
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._together: list[Callable[[], None]] = []
        """Requests that come in one turn of the event loop: they begin in one step."""
        self._streams: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Any]]] = {}
        self._held: set[str] = set()
        """Requests whose tokens may wait in vLLM for others of the same sample."""
        self._error: BaseException | None = None
        self._closing = False

    async def start(self, arguments: dict[str, Any]) -> int:
        ready: Future[int] = Future()
        threading.Thread(target=self._run, args=(arguments, ready), daemon=True, name="vllm").start()
        return await asyncio.wrap_future(ready)

    async def generate(
        self, id: str, prompt: list[int], params: Any, *, lora: Any, priority: int
    ) -> AsyncGenerator[Any]:
        stream: asyncio.Queue[Any] = asyncio.Queue()
        self._streams[id] = (asyncio.get_running_loop(), stream)
        tokens = vllm_module("inputs").TokensPrompt(prompt_token_ids=prompt)
        finished = False

        def add() -> None:
            self._llm.add_request(id, tokens, params, lora_request=lora, priority=priority)

        if _interval(params) > 1:
            self._held.add(id)
        try:
            await asyncio.wrap_future(self._post(add, together=True))
            while not finished:
                output = await stream.get()
                if output is None:
                    finished = True
                    return
                if isinstance(output, BaseException):
                    raise EngineDead(f"vLLM failed: {output}") from output
                finished = output.finished
                yield output
        finally:
            self._streams.pop(id, None)
            self._held.discard(id)
            if not finished:
                aborted = self._post(lambda: self._llm.abort_request([id]))
                with contextlib.suppress(EngineDead):
                    await asyncio.wrap_future(aborted)  # whoever closed the stream finds nothing running

    async def abort(self, id: str) -> None:
        """The engine sends no last output for it, so the stream is ended here, after all that was made before."""

        def end() -> None:
            held = self._rest(id)
            self._llm.abort_request([id])
            self._send([*held, (id, None)])

        await self._call(end)

    async def add_lora(self, lora: Any) -> None:
        await self._call(lambda: self._llm.add_lora(lora))

    async def remove_lora(self, number: int) -> None:
        await self._call(lambda: self._llm.remove_lora(number))

    @property
    def config(self) -> Any:
        """What vLLM resolved its arguments to."""
        return self._llm.vllm_config

    def unfinished(self) -> int:
        return self._llm.get_num_unfinished_requests() if self._llm else 0

    def check(self) -> None:
        if self._error is not None or self._closing:
            raise EngineDead(f"vLLM's thread has ended: {self._error or 'closed'}")

    async def close(self) -> None:
        if self._closing or self._error is not None or self._llm is None:
            return
        for id in tuple(self._streams):
            await self.abort(id)

        await self._call(lambda: setattr(self, "_closing", True))

    async def _call(self, function: Callable[[], R]) -> R:
        """Call it on the engine's thread, between two steps. Raises EngineDead where there are no more steps."""
        return await asyncio.wrap_future(self._post(function))

    def _post(self, function: Callable[[], R], *, together: bool = False) -> Future[R]:
        """`together`: with others of this turn of the event loop, as one call; whatever is posted meanwhile is after
        them."""
        done: Future[R] = Future()

        def on_thread() -> None:
            try:
                self.check()
                result = function()
            except BaseException as error:
                if done.set_running_or_notify_cancel():  # unless whoever waited has gone
                    done.set_exception(error)
            else:
                if done.set_running_or_notify_cancel():
                    done.set_result(result)

        if together:
            self._together.append(on_thread)
            asyncio.get_running_loop().call_soon(self._post_together)
        else:
            self._post_together()
            self._calls.put(on_thread)
        return done

    def _post_together(self) -> None:
        calls, self._together = self._together, []

        def on_thread() -> None:
            for call in calls:
                call()

        if calls:
            self._calls.put(on_thread)

    def _run(self, arguments: dict[str, Any], ready: Future[int]) -> None:
        try:
            made = _engine_args("EngineArgs", arguments)
            self._llm = vllm_module("v1.engine.llm_engine").LLMEngine.from_engine_args(made)
        except BaseException as error:  # the boundary to the thread: whoever started it gets the error
            self._error = error
            ready.set_exception(error)
            return
        ready.set_result(self._llm.model_config.max_model_len)
        while not self._closing:
            self._make_calls(wait=not self._llm.has_unfinished_requests())
            if not self._llm.has_unfinished_requests():
                continue
            try:
                outputs = self._llm.step()
            except BaseException as error:  # the boundary to the model
                self._error = error
                self._send([(id, error) for id in tuple(self._streams)])
                break
            self.generated += sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
            self._send([(output.request_id, output) for output in outputs])
        # vLLM's finaliser tears down process groups that a later engine of this process needs, so this thread holds
        # the engine until the process ends, and answers late callers
        while True:
            self._make_calls(wait=True)

    def _rest(self, id: str) -> list[tuple[str, Any]]:
        """What vLLM holds back of a request, as its last output."""
        if id not in self._held:
            return []
        states = self._llm.output_processor.request_states.values()
        state = next((state for state in states if state.external_req_id == id), None)
        aborted = vllm_module("v1.engine").FinishReason.ABORT
        output = state and state.make_request_output([], None, aborted, None)
        if output is None:
            return []
        self.generated += sum(len(sample.token_ids) for sample in output.outputs)
        return [(id, output)]

    def _make_calls(self, *, wait: bool) -> None:
        """All waiting calls; with `wait` at least one."""
        try:
            while True:
                self._calls.get(block=wait)()
                wait = False
        except queue.Empty:
            return

    def _send(self, items: list[tuple[str, Any]]) -> None:
        """Hand items to their streams, with one wake-up for each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], Any]]] = {}
        for id, item in items:
            if found := self._streams.get(id):
                by_loop.setdefault(found[0], []).append((found[1], item))
        for loop, due in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, due)
            except RuntimeError:  # that loop was closed with its reader
                continue


Backend = ProcessBackend | ThreadBackend


def _engine_args(kind: str, arguments: dict[str, Any]) -> Any:
    """With the one sub-configuration that vLLM does not take as a mapping."""
    structured = vllm_module("config").StructuredOutputsConfig(**arguments["structured_outputs_config"])
    typed = arguments | {"structured_outputs_config": structured}
    return getattr(vllm_module("engine.arg_utils"), kind)(**typed)


def _interval(params: Any) -> int:
    """Tokens that may come together; 1 in a release that knows no such thing."""
    return (params.stream_interval or 1) if "stream_interval" in type(params).__annotations__ else 1


def _deliver(due: list[tuple[asyncio.Queue[Any], Any]]) -> None:
    for stream, item in due:
        stream.put_nowait(item)
