"""What the health routes answer."""

from typing import Literal

from api.wire.answers import Answer


class HealthOut(Answer):
    """The process answers."""

    status: Literal["healthy"]
    service: Literal["waybill"]
    version: str


class DatabaseOut(Answer):
    """Postgres answers."""

    status: Literal["healthy"]
    database: Literal["connected"]


class ReadinessOut(Answer):
    """Whether work is accepted; `degraded` when some of it is not, or not at once, and `reasons` why."""

    status: Literal["healthy", "degraded"]
    db: Literal["connected"]
    redis: Literal["connected", "disconnected"]
    queue: Literal["ok", "backlog", "unknown"]
    reasons: list[str]


class NoDatabaseOut(Answer):
    """Postgres does not answer."""

    status: Literal["unhealthy"]
    database: Literal["disconnected"]


class NotReadyOut(Answer):
    """No work can be accepted, and `reasons` why."""

    status: Literal["unhealthy"]
    db: Literal["connected", "disconnected"]
    redis: Literal["connected", "disconnected"]
    queue: Literal["unknown"]
    reasons: list[str]


class EndingOut(Answer):
    """The process ends."""

    status: Literal["shutting_down"]
