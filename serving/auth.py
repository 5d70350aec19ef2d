"""API keys: every key is compared, in constant time, as a SHA-256 digest; every route needs one unless exempt.

A key comes as `Authorization: Bearer KEY`, or as the password of HTTP Basic, which lets a browser open the page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence

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
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(given, digest)
        return found


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
