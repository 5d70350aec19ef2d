"""Verifiers: judges of finished paths. Each is a frozen pydantic model whose fields are the `params` of a request."""

from __future__ import annotations

from reason_engine.contracts import Verifier
from reason_engine.registry import Registry

verifiers: Registry[Verifier] = Registry("verifier", "reason_engine.verifiers")
