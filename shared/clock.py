"""The host's clock, for facts that decide nothing; what decides reads `app_now()` in SQL."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that only go forward, for waits inside one process."""
    return time.monotonic()


def iso(at: datetime | None) -> str | None:
    """`2026-01-15T12:00:00.123Z`: UTC, milliseconds; None stays None."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
