"""`process-rules`: each step judged by rules and by the model's own likelihood; no second model."""

from reason_engine.verifiers.process_rules.verifier import ProcessRules

__all__ = ["ProcessRules"]
