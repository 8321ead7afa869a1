"""Parallel requests of a virtual key: counted from its unfinished calls, behind a lock on the key's own row.

Lines of batches are not counted: the dispatcher paces them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from shared.db import Tx, hot

LOCK = """
select id, max_parallel_requests as most from virtual_keys
 where id = any(%s) and max_parallel_requests is not null order by id for no key update
"""

# A statement of its own, after the lock: its snapshot sees what the one who held the lock before us accepted.
UNFINISHED = """
select key_id, count(*) as calls from calls
 where key_id = any(%s) and state in ('pending', 'in_progress') and not batched group by key_id
"""


@dataclass(kw_only=True)
class Parallel:
    """A locked key: how many unfinished calls it has, and may have."""

    most: int
    unfinished: int = 0

    def takes(self, calls: int) -> bool:
        """Whether so many more calls may be unfinished."""
        return self.unfinished + calls <= self.most


async def lock(tx: Tx, key_ids: Iterable[UUID]) -> dict[UUID, Parallel]:
    """Lock keys in id order. Those without a limit (any more) are left out."""
    ids = sorted(set(key_ids))
    return {row.id: Parallel(most=row.most) for row in await hot(tx, LOCK, (ids,))} if ids else {}


async def count(tx: Tx, locked: dict[UUID, Parallel]) -> None:
    """Count the unfinished calls of locked keys."""
    if locked:
        for row in await hot(tx, UNFINISHED, (list(locked),)):
            locked[row.key_id].unfinished = row.calls
