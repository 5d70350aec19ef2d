"""Messages on a pipe: four bytes of length, then JSON. Nothing but data can be read from them."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LARGEST = 1 << 24


def encode(message: Any) -> bytes:
    """A message as bytes. Raises ValueError, TypeError or RecursionError for what is no data, or too much of it."""
    text = json.dumps(message).encode()
    if len(text) > LARGEST:
        raise ValueError("a value of more than 16 MB")
    return struct.pack(">I", len(text)) + text


def send(handle: int, message: Any) -> None:
    """Write one message wholly."""
    left = memoryview(encode(message))
    while left:
        left = left[os.write(handle, left) :]


def receive(handle: int) -> Any:
    """The next message. Raises EOFError at the end, ValueError for what is no message."""
    (size,) = struct.unpack(">I", _exactly(handle, 4))
    if size > LARGEST:
        raise ValueError("a message of more than 16 MB")
    return json.loads(_exactly(handle, size))


def _exactly(handle: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(handle, min(size, 1 << 16))
        if not part:
            raise EOFError("the other end is closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
