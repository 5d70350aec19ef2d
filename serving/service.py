"""What the routes of one server share, passed to them explicitly."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from reason_engine.answers import Equality
from reason_engine.contracts import Engine, Health, Powers
from reason_engine.errors import EngineError
from reason_engine.knowledge import Library
from reason_engine.profile import Profile
from reason_engine.runtime.trace import TraceRing
from reason_engine.serving.adapters import Adapters
from reason_engine.serving.guard.content_guard import ContentGuard
from reason_engine.serving.guard.limits import AdmissionGate
from reason_engine.serving.metrics import Metrics
from reason_engine.settings import Settings


@dataclass(frozen=True)
class Service:
    """One model behind one HTTP application."""

    engine: Engine
    profile: Profile
    settings: Settings
    gate: AdmissionGate
    metrics: Metrics
    traces: TraceRing
    equality: Equality
    knowledge: Library | None = None
    """The operator's documents."""
    powers: Powers = field(default_factory=Powers)
    """What the operator lets verifiers do on this machine."""
    guard: ContentGuard = field(kw_only=True)
    adapters: Adapters = field(kw_only=True)
    created: int = field(default_factory=lambda: int(time.time()))  # noqa: TID251 - a date for clients

    @property
    def name(self) -> str:
        """The name under which clients ask for the base model."""
        return self.settings.served_name or self.engine.info.name

    async def health(self) -> Health:
        """The engine's state; dead where it cannot even be asked."""
        try:
            return await self.engine.health()
        except EngineError as error:
            return Health(ready=False, live=False, detail=str(error))

    def models(self) -> tuple[str, ...]:
        """The base model, then the adapters."""
        return (self.name, *self.adapters.names())
