"""The messages on Redis, queued or published: ids only, safe to send twice. The row is the truth."""

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from shared import redis_keys


@dataclass(frozen=True, kw_only=True)
class RunCalls:
    """Run pending calls, each on its own. Handled by workers/app.py `run_calls`."""

    actor: ClassVar[str] = "run_calls"
    queue: ClassVar[str] = "calls"

    ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class RunLines:
    """Run pending lines of batches, each on its own. Handled by workers/app.py `run_lines`, in units of their own."""

    actor: ClassVar[str] = "run_lines"
    queue: ClassVar[str] = "calls_batch"

    ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class TendBatches:
    """Batches are to be checked, cancelled or finished: whoever hears it takes those whose turn it is, maybe others.

    See workers/batches.py.
    """

    actor: ClassVar[str] = "tend_batches"
    queue: ClassVar[str] = "batches"

    ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class Deliver:
    """Queues of deliveries (`deliveries.queue_id`) in which something is due. Handled by workers/app.py `deliver`."""

    actor: ClassVar[str] = "deliver"
    queue: ClassVar[str] = "webhooks"

    ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Calls and jobs reached a final state. Published to every api process, which wakes whoever waits for them."""

    channel: ClassVar[str] = redis_keys.ended_channel()

    ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Calls were cancelled or ran out of time. Published to every worker, which closes their provider connections."""

    channel: ClassVar[str] = redis_keys.cancel_channel()

    ids: tuple[UUID, ...]


Queued = RunCalls | RunLines | TendBatches | Deliver
"""Kept on a queue until a worker takes them."""
Message = Queued | Ended | Stop
MAX_IDS = 8
"""Most ids one message carries: few enough that a burst spreads over the worker units."""
