"""Calls that come in: their rows and the requests they carry, written by the transaction that accepts them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.states import Endpoint

GIVEN = {
    "id": "uuid",
    "job_id": "uuid",
    "team_id": "text",
    "position": "int",
    "priority": "int",
    "endpoint": "text",
    "stream": "boolean",
    "model": "text",
    "candidates": "text[]",
    "retries": "int",
    "client_call_id": "text",
    "purpose": "text",
    "metadata": "jsonb",
    "call_metadata": "jsonb",
    "estimated_prompt_tokens": "int",
    "estimated_output_tokens": "int",
    "estimate_nanousd": "bigint",
    "key_id": "uuid",
    "budget_ids": "uuid[]",
    "created_at": "timestamptz",
    "callback_url": "text",
    "callback_events": "text[]",
    "batched": "boolean",
    "custom_id": "text",
}

CREATE = f"""
with made as (
    insert into calls ({", ".join(GIVEN)}, callback_secret_sealed, deadline_at, rung_at)
    select {", ".join(f"r.{name}" for name in GIVEN)}, decode(r.callback_secret_hex, 'hex'),
           least(app_now() + make_interval(secs => r.deadline_s), j.deadline_at), case when r.rung then app_now() end
      from json_to_recordset(%s) as r(
           {", ".join(f"{name} {kind}" for name, kind in GIVEN.items())},
           callback_secret_hex text, deadline_s double precision, rung boolean)
      join jobs j on j.id = r.job_id
)
insert into call_payloads (call_id, request, erase_at)
select r.id, r.request::json, case when not (%s and t.store_payloads) then app_now() + interval '1 hour' end
  from rows from (unnest(%s::uuid[], %s::text[]), json_array_elements_text(%s::json)) as r(id, team_id, request)
  join teams t on t.id = r.team_id
"""


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """A call to be accepted. `request` is the JSON text of what goes to the provider.

    retries: tries per candidate after the first, where the client said how many. estimate_nanousd: what it may cost its
    team at most; budget_ids: the budgets that are to hold that.
    """

    id: UUID
    job_id: UUID
    team_id: str
    model: str
    candidates: list[str]
    request: str
    created_at: datetime
    deadline_s: float
    endpoint: Endpoint = Endpoint.CHAT
    stream: bool = False
    retries: int | None = None
    client_call_id: str | None = None
    position: int = 0
    priority: int = 0
    purpose: str | None = None
    metadata: dict[str, Any] | None = None
    call_metadata: dict[str, Any] | None = None
    estimated_prompt_tokens: int = 0
    estimated_output_tokens: int = 0
    estimate_nanousd: int = 0
    key_id: UUID | None = None
    budget_ids: list[UUID] | None = None
    callback_url: str | None = None
    callback_events: list[str] = field(default_factory=list)
    callback_secret_sealed: bytes | None = None
    custom_id: str | None = None

    @property
    def batched(self) -> bool:
        """Whether it is a line of a batch: only those have a name of the client's."""
        return self.custom_id is not None

    @property
    def estimated_tokens(self) -> int:
        """Prompt and answer together."""
        return self.estimated_prompt_tokens + self.estimated_output_tokens


async def create(tx: Tx, new: Sequence[NewCall], *, rung: set[UUID], store_payloads: bool) -> None:
    """Insert calls and their requests, which are erased soon after the end unless they are to be stored.

    Those in `rung` are about to be rung; the dispatcher picks up the others.
    """
    if not new:
        return
    rows = [{**{name: getattr(call, name) for name in GIVEN}, **_more(call, call.id in rung)} for call in new]
    # As an array of texts the driver would look at every quote of every request.
    requests = orjson.dumps([call.request for call in new]).decode()
    callers = ([call.id for call in new], [call.team_id for call in new])
    await hot(tx, CREATE, (orjson.dumps(rows).decode(), store_payloads, *callers, requests))


def _more(call: NewCall, rung: bool) -> dict[str, Any]:
    sealed = call.callback_secret_sealed
    return {"callback_secret_hex": sealed.hex() if sealed else None, "deadline_s": call.deadline_s, "rung": rung}
