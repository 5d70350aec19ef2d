"""Evaluations: tasks with an exact grade, runs of tasks times strategies, and reports with their uncertainty.

A task is a frozen pydantic model registered by name; its fields are what `name:key=value` may set.
"""

from __future__ import annotations

from reason_engine.contracts import Task
from reason_engine.registry import Registry

tasks: Registry[Task] = Registry("task", "reason_engine.evals", "reason_engine.evals.datasets", "reason_engine.recipes")

__all__ = ["tasks"]
