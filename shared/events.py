"""Events: the outbox and the log. A row is written in the transaction of its fact, its body serialised once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from shared import clock, ids
from shared.db import Tx, hot

RECORD = """
insert into events (id, type, team_id, job_id, subject_id, sequence, body, created_at)
select * from unnest(
    %s::uuid[], %s::text[], %s::text[], %s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::timestamptz[])
"""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact. `subject_id` is the call of a call event; `sequence` counts per job, from 1, without gaps."""

    id: UUID
    type: str
    team_id: str
    job_id: UUID | None
    subject_id: UUID | None
    sequence: int | None
    at: datetime
    data: Mapping[str, Any]

    def body(self) -> str:
        """The event object as it goes to every reader."""
        return orjson.dumps(
            {
                "id": ids.prefixed("evt", self.id),
                "object": "event",
                "type": self.type,
                "event": self.type,
                "timestamp": clock.iso(self.at),
                "created_at": int(self.at.timestamp()),
                "sequence": self.sequence,
                "job_id": None if self.job_id is None else str(self.job_id),
                "team_id": self.team_id,
                "data": self.data,
            }
        ).decode()


async def record(tx: Tx, facts: Sequence[Event]) -> None:
    """Write events. A sequence number used twice for a job violates its unique index."""
    if not facts:
        return
    columns = (
        [f.id for f in facts],
        [f.type for f in facts],
        [f.team_id for f in facts],
        [f.job_id for f in facts],
        [f.subject_id for f in facts],
        [f.sequence for f in facts],
        [f.body() for f in facts],
        [f.at for f in facts],
    )
    await hot(tx, RECORD, columns)
