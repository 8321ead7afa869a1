"""Retention: what is kept no longer is deleted, in small steps; a step that fails is tried again at the next round."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from shared import (
    admin_sessions,
    batches,
    delivery_retention,
    event_log,
    files,
    idempotency,
    login_failures,
    payloads,
    provider_circuits,
    unrun_texts,
    webhook_keys,
)
from shared.db import Tx
from shared.runtime import Runtime
from shared.settings import Settings
from shared.unrun_texts import LINES
from workers.rounds import Rounds

STEP = 500
MOST_STEPS = 100
EVERY_S = 60.0
DRY_RUNS_S = 3600.0
"""How long the row of a dry run is kept."""
UNFINISHED_S = 3600.0
"""After so long a file that is not whole is not written to any more."""
CHUNKS = 50
"""Of files, 1 MiB each, that one step deletes."""
CHUNK_STEPS = 40
"""In one round: 2 GB take some ten seconds, and other steps wait for it."""
EVENTS = 2000
"""Events that one step looks at."""


def rounds(rt: Runtime, *, events_at_once: int = EVENTS) -> Rounds:
    """Everything that expires.

    Files take three turns: first nobody sees them any more, then their chunks go, then they themselves.
    """
    steps: Mapping[str, Callable[[], Awaitable[int]]] = {
        **{name: partial(_all, rt, step) for name, step in _rows(rt.settings).items()},
        "unstored_payloads": partial(_unstored, rt),
        "unrun_payloads": partial(_all, rt, lambda tx: unrun_texts.erase(tx, limit=LINES), size=1),
        "events": partial(_events, rt, events_at_once),
        "files": partial(_all, rt, lambda tx: files.hide_over(tx, unfinished_s=UNFINISHED_S, limit=STEP)),
        "file_chunks": partial(
            _all, rt, lambda tx: files.delete_chunks(tx, limit=CHUNKS), size=CHUNKS, most=CHUNK_STEPS
        ),
        "hidden_files": partial(_all, rt, lambda tx: files.delete_hidden(tx, limit=STEP)),
    }
    return Rounds("retention", steps)


def _rows(settings: Settings) -> Mapping[str, Callable[[Tx], Awaitable[int]]]:
    """What goes row by row, a stepful at a time."""
    days, delivery_days = settings.payload_retention_days, settings.delivery_retention_days
    return {
        "idempotency_keys": lambda tx: idempotency.delete_expired(tx, limit=STEP),
        "admin_sessions": lambda tx: admin_sessions.delete_expired(tx, limit=STEP),
        "provider_circuits": lambda tx: provider_circuits.forget(tx, limit=STEP),
        "login_failures": lambda tx: login_failures.delete_old(tx, limit=STEP),
        "webhook_keys": lambda tx: webhook_keys.delete_expired(tx, limit=STEP),
        "old_payloads": lambda tx: payloads.erase_old(tx, days=days, limit=STEP),
        "dry_runs": lambda tx: batches.delete_dry_runs(tx, older_than_s=DRY_RUNS_S, limit=STEP),
        "delivery_attempts": lambda tx: delivery_retention.delete_attempts(tx, days=delivery_days, limit=STEP),
        "deliveries": lambda tx: delivery_retention.delete_final(tx, days=delivery_days, limit=STEP),
    }


async def _all(rt: Runtime, step: Callable[[Tx], Awaitable[int]], *, size: int = STEP, most: int = MOST_STEPS) -> int:
    """Take at most so many steps, until one finds less than its size. Returns how many rows all of them found."""
    total = 0
    for _ in range(most):
        async with rt.db.hot_transaction() as tx:
            found = await step(tx)
        total += found
        if found < size:
            break
    return total


async def _events(rt: Runtime, limit: int) -> int:
    """Each step goes on where the one before ended: an event that is still to be delivered holds up no other."""
    total, after = 0, 0
    for _ in range(MOST_STEPS):
        async with rt.db.hot_transaction() as tx:
            step = await event_log.delete_old(tx, after=after, days=rt.settings.event_retention_days, limit=limit)
        total += step.count
        if step.after is None:
            break
        after = step.after
    return total


async def _unstored(rt: Runtime) -> int:
    """Texts that are not over yet are looked at too, and put off."""
    total = 0
    for _ in range(MOST_STEPS):
        async with rt.db.hot_transaction() as tx:
            step = await payloads.erase_unstored(tx, limit=STEP)
        total += step.erased
        if step.looked_at < STEP:
            break
    return total
