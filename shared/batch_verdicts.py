"""What a check finds, written on the batch's row: it runs, or it is refused and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from shared.db import Tx, hot

ACCEPT = """
update batches set status = 'in_progress', in_progress_at = app_now(), worker = null, lease_expires_at = null,
       lines = %(lines)s, models = %(models)s, estimated_tokens = %(tokens)s, estimated_nanousd = %(nanousd)s,
       credits_needed = %(credits)s
 where id = %(id)s and status = 'validating' and worker = %(worker)s
returning id
"""

REFUSE = """
update batches set status = 'failed', failed_at = app_now(), worker = null, lease_expires_at = null,
       errors = %(errors)s, lines = %(lines)s, models = %(models)s, estimated_tokens = %(tokens)s,
       estimated_nanousd = %(nanousd)s, credits_needed = %(credits)s
 where id = %(id)s and status = 'validating' and worker = %(worker)s
returning id
"""


@dataclass(kw_only=True)
class Sums:
    """What the lines that are in order come to. models: the names that clients asked for. credits: to be held."""

    lines: int = 0
    models: dict[str, None] = field(default_factory=dict)
    tokens: int = 0
    nanousd: int = 0
    credits: int = 0

    def add(self, model: str, *, tokens: int, nanousd: int) -> None:
        """Count one line."""
        self.lines += 1
        self.models[model] = None
        self.tokens += tokens
        self.nanousd += nanousd


async def accept(tx: Tx, batch_id: UUID, sums: Sums, *, worker: str) -> bool:
    """Let the lines run, which `tx` has written. False when it was cancelled, or somebody else checks it."""
    return bool(await hot(tx, ACCEPT, _given(batch_id, sums, worker)))


async def refuse(tx: Tx, batch_id: UUID, sums: Sums, errors: Sequence[dict[str, Any]] | None, *, worker: str) -> bool:
    """End it for these errors: [{code, message, param, line}]. False as for `accept`.

    A dry run ends so too, without errors where there are none.
    """
    given = _given(batch_id, sums, worker)
    return bool(await hot(tx, REFUSE, {**given, "errors": orjson.dumps(errors).decode() if errors else None}))


def _given(batch_id: UUID, sums: Sums, worker: str) -> dict[str, Any]:
    return {**vars(sums), "models": list(sums.models), "id": batch_id, "worker": worker}
