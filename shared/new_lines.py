"""Lines of a batch that come in: calls and the requests they carry, copied in by the thousand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.db import Tx, hot
from shared.driver_pool import Connection
from shared.states import Endpoint

COPY_CALLS = """
copy calls (id, job_id, team_id, position, priority, batched, custom_id, endpoint, model, candidates, retries, metadata,
            estimated_prompt_tokens, estimated_output_tokens, estimate_nanousd, key_id, budget_ids, deadline_at)
from stdin
"""

COPY_PAYLOADS = "copy call_payloads (call_id, request, erase_at) from stdin"

TABLES = ("calls", "call_payloads")
"""Where lines are copied to."""

# Like that of calls, see shared/payloads.py.
ERASE_AT = """
select case when not (%s and store_payloads) then app_now() + interval '1 hour' end as erase_at from teams where id = %s
"""


@dataclass(frozen=True, kw_only=True)
class OfBatch:
    """What all lines of a batch share. deadline_at: when the batch expires. erase_at: None where texts are kept."""

    job_id: UUID
    priority: int
    endpoint: Endpoint
    deadline_at: datetime
    erase_at: datetime | None


@dataclass(kw_only=True, slots=True)
class NewLine:
    """A line to be accepted, as `sizing.sized` and its client describe it. position: its place in the file, from 0.

    metadata: JSON text, or None. For the rest see `NewCall`.
    """

    id: UUID
    position: int
    custom_id: str
    retries: int | None
    metadata: str | None
    team_id: str
    key_id: UUID
    model: str
    candidates: Sequence[str]
    request: str
    estimated_prompt_tokens: int
    estimated_output_tokens: int
    estimate_nanousd: int
    budget_ids: Sequence[UUID] | None

    @property
    def estimated_tokens(self) -> int:
        """Prompt and answer together."""
        return self.estimated_prompt_tokens + self.estimated_output_tokens


async def erase_at(tx: Tx, team_id: str, *, store: bool) -> datetime | None:
    """When somebody is to look whether texts of a line of this team are to be erased; None: they are kept.

    store: whether the installation keeps any.
    """
    found: datetime | None = (await hot(tx, ERASE_AT, (store, team_id)))[0].erase_at
    return found


async def copy(tx: Connection, batch: OfBatch, lines: Sequence[NewLine]) -> None:
    """Insert lines and their requests. They wait for the dispatcher, which sees them once `tx` is committed."""
    erase_at = None if batch.erase_at is None else batch.erase_at.isoformat()
    shared = (str(batch.job_id), batch.priority, batch.endpoint.value, batch.deadline_at.isoformat())
    async with tx.cursor() as cursor:
        async with cursor.copy(COPY_CALLS) as calls:
            for line in lines:
                await calls.write_row(_row(line, *shared))
        async with cursor.copy(COPY_PAYLOADS) as payloads:
            for line in lines:
                await payloads.write_row((line.id, line.request, erase_at))


def _row(line: NewLine, job_id: str, priority: int, endpoint: str, deadline_at: str) -> tuple[object, ...]:
    return (
        line.id,
        job_id,
        line.team_id,
        line.position,
        priority,
        "t",
        line.custom_id,
        endpoint,
        line.model,
        _array(line.candidates),
        line.retries,
        line.metadata,
        line.estimated_prompt_tokens,
        line.estimated_output_tokens,
        line.estimate_nanousd,
        line.key_id,
        None if line.budget_ids is None else _array(map(str, line.budget_ids)),
        deadline_at,
    )


def _array(words: Iterable[str]) -> str:
    """A Postgres array of aliases or ids, in which nothing needs an escape.

    The driver's own way of writing lists takes as long as all other columns.
    """
    return "{" + ",".join(f'"{word}"' for word in words) + "}"
