"""Events: facts as every reader gets them, serialised once. `outbox` writes them in the transaction of their fact."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from shared import clock, ids, payload_forms

# Thousands that end together share their moment.
_iso = lru_cache(maxsize=16)(clock.iso)


@dataclass(frozen=True, kw_only=True, slots=True)
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
        """The event object as it goes to every reader, at most 20,000 bytes."""
        return payload_forms.written(
            {
                "id": ids.prefixed("evt", self.id),
                "object": "event",
                "type": self.type,
                "event": self.type,
                "timestamp": _iso(self.at),
                "created_at": int(self.at.timestamp()),
                "sequence": self.sequence,
                "job_id": self.job_id,
                "team_id": self.team_id,
                "data": self.data,
            }
        )
