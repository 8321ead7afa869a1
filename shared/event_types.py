"""The event types, and what a subscription may name: an exact type, a glob (`job.*`) or `*`."""

from collections.abc import Iterable, Sequence

TYPES = (
    "job.created",
    "job.started",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "call.completed",
    "call.failed",
    "call.cancelled",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "credits.low",
    "webhook.endpoint.disabled",
)
OPT_IN = ("job.progress", "webhook.endpoint.failing", "webhook.delivery.exhausted", "webhook.delivery.recovered")
"""Sent only to who names them exactly; no glob matches them."""
ALL = (*TYPES, *OPT_IN)
"""What can be subscribed to."""
TEST = "webhook.test"
"""Sent by the test of an endpoint, to that endpoint alone; nobody subscribes to it."""

JOB_DEFAULT = ("job.completed", "job.failed")
CALL_DEFAULT = ("call.completed", "call.failed", "call.cancelled")


def names(type_: str) -> list[str]:
    """What a subscription may say to mean this type: `job.completed`, `job.*`, `*`."""
    if type_ in OPT_IN or type_ == TEST:
        return [type_]
    parts = type_.split(".")
    return [type_, "*", *(".".join(parts[:n]) + ".*" for n in range(1, len(parts)))]


def unknown(events: Iterable[str], types: Sequence[str] = ALL) -> str | None:
    """The first of these names that means none of the types, or None."""
    meant = {name for type_ in types for name in names(type_)}
    return next((event for event in events if event not in meant), None)


def matching(wanted: Iterable[str]) -> list[str]:
    """The types, `webhook.test` among them, that one of these names means."""
    given = set(wanted)
    return [type_ for type_ in (*ALL, TEST) if given.intersection(names(type_))]
