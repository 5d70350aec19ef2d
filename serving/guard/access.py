"""What lets a request in: `AccessGuard` before any other code runs, `AdmissionGate` before anything is tokenised.

The guard is the outermost layer, plain ASGI: path, request id, key, Host, Origin and body size.

Everything is decided on `scope["path"]`, never on a URL built from the Host header. No cross-origin access is given.
Every route needs an API key unless exempt; every key is compared, in constant time, as a SHA-256 digest. A key comes as
`Authorization: Bearer KEY`, or as the password of HTTP Basic, which lets a browser open the page.

The gate's unit of capacity is a sequence in the engine, not an HTTP request: a vote of 16 takes 16.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import NoReturn

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reason_engine.serving.api.errors import RETRY_BUSY, RETRY_DOWN, Refused, failure
from reason_engine.settings import LOOPBACK, Settings

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class AccessGuard:
    """Wraps the application. `hosts`: names accepted in the Host header, None: any; `refused` is called with the code
    of every refusal."""

    def __init__(
        self, app: ASGIApp, keys: Keys, hosts: Collection[str] | None, max_body: int, refused: Callable[[str], None]
    ) -> None:
        self._app, self._keys, self._hosts, self._max_body = app, keys, hosts, max_body
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.monotonic()
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = next((value for name, value in headers if name == b"x-request-id"), b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}".encode()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = int(1000 * (time.monotonic() - started))
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id),
                    (b"openai-processing-ms", str(spent).encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        # `//v1/models/` is what some clients make of a base URL with a slash.
        path = re.sub("/{2,}", "/", scope["path"]).rstrip("/") or "/"
        scope = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        refused = self._refusal(path, headers)
        if refused:
            self._refused(refused.code)
            await failure(refused).response()(scope, receive, marked)
            return
        await self._app(scope, self._bounded(receive), marked)

    def _refusal(self, path: str, headers: list[tuple[bytes, bytes]]) -> Refused | None:
        if not self._keys.allow(path, headers):
            why = "missing or wrong API key; send it as 'Authorization: Bearer KEY'"
            # A browser then asks for the key as a password, so that the page can be opened.
            login = {"www-authenticate": 'Basic realm="Reason Engine", charset="UTF-8"'}
            return Refused(401, why, "invalid_api_key", headers=login)
        host = _value(headers, b"host")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            return Refused(403, "this Host is not served; see the setting allowed_hosts", "host_not_allowed")
        origin = _value(headers, b"origin")
        web = origin == "null" or origin.startswith(("http://", "https://"))
        if web and origin.partition("://")[2] != host:
            return Refused(403, "requests from other sites' pages are not served", "origin_not_allowed")
        length = _value(headers, b"content-length")
        if length.isdigit() and int(length[:20]) > self._max_body:
            return self._too_large()
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """Count the body as it is read; a sender who gave no length meets the same bound."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._max_body:
                    raise self._too_large()
            return message

        return counted

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._max_body} bytes", "request_too_large")


def accepted_hosts(bound: str, allowed: Collection[str]) -> frozenset[str] | None:
    """The Host names to accept: on loopback only local ones, so that a rebound DNS name does not reach the server."""
    if "*" in allowed:
        return None
    if bound in LOOPBACK:
        return frozenset((*LOOPBACK, *(name.lower() for name in allowed)))
    return frozenset((bound.lower(), *(name.lower() for name in allowed))) if allowed else None


def _value(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def _hostname(host: str) -> str:
    """Without the port; `[::1]:8000` is `::1`."""
    return (host[1:].partition("]") if host.startswith("[") else host.partition(":"))[0].lower()


EXEMPT = frozenset({"/health", "/health/live", "/health/ready"})


class Keys:
    """The keys that a server accepts. Without keys everything is allowed: the server is then on loopback only."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def allow(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether a request for this (normalised) path may pass."""
        if not self._digests or path in EXEMPT:
            return True
        given = digest_of(headers)
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0  # all, whichever fits


class OperatorKeys:
    """Who may change a server. Without any key it is on loopback, and everyone there may."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(key.get_secret_value() for key in settings.operator_keys)
        self._anyone = not settings.operator_keys and not settings.api_keys and settings.host in LOOPBACK
        self._given = bool(settings.operator_keys)

    def check(self, request: Request) -> None:
        """Raises Refused (403) for a client's key."""
        headers = request.scope["headers"]
        if self._anyone or (self._given and self._keys.allow(request.scope["path"], headers)):
            return
        how = "send that" if self._given else "this server has none: set REASON_OPERATOR_KEYS"
        raise Refused(403, f"adapters are changed with an operator key; {how}", "operator_key_required")


def digest_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """SHA-256 of the key that a request came with."""
    return hashlib.sha256(_key(headers)).digest()


def _key(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return b""
    scheme, _, rest = values[0].partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


class AdmissionGate:
    """Lets requests in while the engine is up and has room. One a server; used from its event loop only."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self.requests = 0
        self.loading = False
        self.draining = False
        self.failure: BaseException | None = None
        """Why the engine will not come back, once that is known."""
        self.failed = asyncio.Event()
        self._idle = asyncio.Event()
        self._over = asyncio.Event()
        self._idle.set()

    @property
    def dead(self) -> str | None:
        """The failure in words."""
        return None if self.failure is None else str(self.failure) or type(self.failure).__name__

    def fail(self, error: BaseException) -> None:
        """From now on everything is refused."""
        self.failure = error
        self.failed.set()

    @property
    def open(self) -> bool:
        """Whether new work is taken at all."""
        return not (self.loading or self.draining or self.dead)

    @contextmanager
    def hold(self, sequences: int) -> Generator[None]:
        """Take room for a request's sequences. Raises Refused: 503 while down, 429 without room."""
        self.check()
        # A request wider than the whole capacity runs alone rather than never.
        if self.held and self.held + sequences > self.capacity:
            room = f"{self.held} of {self.capacity} sequences are running and this request needs {sequences}"
            raise Refused(429, f"this server is full: {room}", "queue_full", headers=RETRY_BUSY)
        self.held += sequences
        self.requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.held -= sequences
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    def check(self) -> None:
        """Raises Refused (503) while the server takes no work."""
        if self.dead:
            raise Refused(503, f"the engine has stopped: {self.dead}", "engine_dead", headers=RETRY_DOWN)
        if self.draining:
            raise Refused(503, "this server is shutting down", "draining", headers=RETRY_DOWN)
        if self.loading:
            raise Refused(503, "the model is still loading", "loading", headers=RETRY_DOWN)

    def end(self) -> None:
        """The time to finish is over: what still runs is refused."""
        self._over.set()

    async def over(self) -> NoReturn:
        """Raises Refused (503) once the time to finish is over."""
        await self._over.wait()
        raise Refused(503, "this server is shutting down", "draining", headers=RETRY_DOWN)

    async def idle(self) -> None:
        """Wait until no request is running."""
        await self._idle.wait()
