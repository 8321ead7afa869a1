"""Idempotency keys: a POST that is sent again has one effect. The row is written in the transaction of the effect."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from shared.db import Tx, hot

FIND = """
select k.request, k.job_id, k.call_id, k.delivery_id, k.status, k.answer_sealed, c.state as call_state
  from idempotency_keys k
  left join calls c on c.id = k.call_id
 where k.scope = %s and k.expires_at > app_now()
"""

# A concurrent claim of the same key waits here for the first one's commit; an expired row counts as none.
CLAIM = """
insert into idempotency_keys as k (scope, request, job_id, call_id, delivery_id, status, answer_sealed, expires_at)
select scope, request, job_id, call_id, delivery_id, status, decode(answer, 'hex'), app_now() + interval '25 hours'
  from unnest(%s::bytea[], %s::bytea[], %s::uuid[], %s::uuid[], %s::uuid[], %s::int[], %s::text[])
       as c(scope, request, job_id, call_id, delivery_id, status, answer)
 order by scope
on conflict (scope) do update
   set request = excluded.request, job_id = excluded.job_id, call_id = excluded.call_id,
       delivery_id = excluded.delivery_id, status = excluded.status,
       answer_sealed = excluded.answer_sealed, created_at = app_now(), expires_at = excluded.expires_at
 where k.expires_at <= app_now()
returning scope
"""

ANSWER = """
update idempotency_keys set status = %s, answer_sealed = %s
 where scope = %s and request = %s and answer_sealed is null and call_id is not distinct from %s
returning scope
"""

FORGET = "delete from idempotency_keys where scope = any(%s)"

FREE = "delete from idempotency_keys where scope = %s and call_id = %s"

FREE_JOB = "delete from idempotency_keys where scope = %s and job_id = %s"

DELETE_EXPIRED = """
delete from idempotency_keys where scope in (
     select scope from idempotency_keys where expires_at <= app_now()
      order by expires_at limit %s for update skip locked)
returning scope
"""


class Repeated(Exception):
    """Another request with the same key got there first; the edge answers with what that one made."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A key to be taken. scope, request: SHA-256 each. answer_sealed: None when it is rebuilt from what was made."""

    scope: bytes
    request: bytes
    job_id: UUID | None = None
    call_id: UUID | None = None
    delivery_id: UUID | None = None
    status: int | None = None
    answer_sealed: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the first request with a key made, and how that call stands now."""

    request: bytes
    job_id: UUID | None
    call_id: UUID | None
    delivery_id: UUID | None
    status: int | None
    answer_sealed: bytes | None
    call_state: str | None


async def find(tx: Tx, scope: bytes) -> Kept | None:
    """What is kept under this key, or None."""
    rows = await hot(tx, FIND, (scope,))
    return Kept(**rows[0]._asdict()) if rows else None


async def claim(tx: Tx, wanted: Sequence[Claim]) -> set[bytes]:
    """Take keys, each once; waits for a concurrent claim to commit. Returns the scopes that are ours now."""
    first = list({claim.scope: claim for claim in reversed(wanted)}.values())
    if not first:
        return set()
    columns = (
        [claim.scope for claim in first],
        [claim.request for claim in first],
        [claim.job_id for claim in first],
        [claim.call_id for claim in first],
        [claim.delivery_id for claim in first],
        [claim.status for claim in first],
        [None if claim.answer_sealed is None else claim.answer_sealed.hex() for claim in first],
    )
    return {bytes(row.scope) for row in await hot(tx, CLAIM, columns)}


async def answer(tx: Tx, wanted: Claim) -> None:
    """Keep the answer of a key: on its row, or on a new one where the effect left none (it was there already).

    A call whose key was freed meanwhile leaves no answer: the key may be another call's by now.
    """
    params = (wanted.status, wanted.answer_sealed, wanted.scope, wanted.request, wanted.call_id)
    if not await hot(tx, ANSWER, params) and wanted.call_id is None:
        await claim(tx, [wanted])


async def forget(tx: Tx, scopes: Iterable[bytes]) -> None:
    """Give up keys claimed in this transaction, whose requests were refused after all."""
    if given_up := list(scopes):
        await hot(tx, FORGET, (given_up,))


async def free(tx: Tx, scope: bytes, call_id: UUID) -> None:
    """Free a key whose call failed or was cancelled: the repeat is a new call."""
    await hot(tx, FREE, (scope, call_id))


async def free_job(tx: Tx, scope: bytes, job_id: UUID) -> None:
    """Free a key whose job was refused before it began: the repeat is a new one."""
    await hot(tx, FREE_JOB, (scope, job_id))


async def delete_expired(tx: Tx, *, limit: int) -> int:
    """Delete keys that nobody can repeat any more. Returns how many."""
    return len(await hot(tx, DELETE_EXPIRED, (limit,)))
