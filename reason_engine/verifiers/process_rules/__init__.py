"""`process-rules`: steps judged by rules. One idea a file; `verifier` puts them together."""

from __future__ import annotations

from reason_engine.verifiers.process_rules.verifier import ProcessRules

__all__ = ["ProcessRules"]
