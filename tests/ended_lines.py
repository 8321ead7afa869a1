"""Batches whose lines end as a test says, without workers: rows as accepting and closing leave them."""

from typing import Any
from uuid import UUID

import orjson

from shared import batches, ids
from shared.batches import Batch
from tests.scene import Scene, Team

SAID = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}]}
OUTCOMES: dict[str, tuple[str, str | None]] = {
    "good": ("completed", None),
    "bad": ("failed", "provider_rate_limit"),
    "expired": ("failed", "deadline_exceeded"),
    "cancelled": ("cancelled", "cancelled"),
}
COUNTED = {"good": "calls_completed", "bad": "calls_failed", "expired": "calls_failed", "cancelled": "calls_cancelled"}
COST_NANOUSD = 1000

JOB = """
insert into jobs (id, team_id, organization_id, job_type, status, is_batch, auto_complete, started_at, metadata)
select :id, id, organization_id, 'batch', 'in_progress', true, true, app_now(), '{"for":"reports"}' from teams
 where id = :team returning id
"""
BATCH = """
insert into batches (id, team_id, key_id, endpoint, status, input_file_id, completion_window, output_expires_after_s,
                     expires_at, in_progress_at)
values (:id, :team, :id, 'chat', 'in_progress', :id, '24h', :expires_after_s, app_now() + interval '1 day', app_now())
returning id
"""
CALL = """
insert into calls (id, job_id, team_id, position, state, batched, custom_id, ended_number, model, candidates, attempt,
                   deadline_at, completed_at, finish_reason, prompt_tokens, completion_tokens, total_tokens, error_code,
                   client_cost_nanousd)
select :id, j.id, j.team_id, :place - 1, :state, true, 'line-' || :place, :place, 'fast', array['fast'], 1,
       app_now() + interval '1 day', app_now(), :finish_reason, 1, 2, 3, :code, :cost from jobs j where j.id = :job
returning id
"""
PAYLOAD = """
insert into call_payloads (call_id, request, response) values (:id, '{}', cast(:response as json)) returning call_id
"""
COUNT = """
update jobs set calls_total = calls_total + 1, {counter} = {counter} + 1, calls_expired = calls_expired + :expired,
       client_cost_nanousd = client_cost_nanousd + :cost where id = :job returning calls_total
"""
OVER = """
with ended as (update jobs set status = :status, failure_reason = :reason, completed_at = app_now() where id = :job)
update batches set status = :as_batch, finalizing_at = app_now() where id = :job and status = 'in_progress' returning id
"""


async def begun(scene: Scene, team: Team, *outcomes: str, expires_after_s: int | None = None) -> UUID:
    """A batch that runs, with lines that have ended so."""
    id_ = ids.new()
    await scene.rows(JOB, id=id_, team=team.id)
    await scene.rows(BATCH, id=id_, team=team.id, expires_after_s=expires_after_s)
    await more(scene, id_, *outcomes)
    return id_


async def more(scene: Scene, id_: UUID, *outcomes: str, response: Any = SAID) -> None:
    """More lines end, each in a moment of its own; one of them after the other."""
    for outcome in outcomes:
        state, code = OUTCOMES[outcome]
        cost = COST_NANOUSD if outcome == "good" else 0
        counted = COUNT.format(counter=COUNTED[outcome])
        made, place = ids.new(), (await scene.row("select calls_total from jobs where id = :job", job=id_)).calls_total
        given = {"state": state, "code": code, "cost": cost, "finish_reason": None if code else "stop"}
        await scene.rows(CALL, id=made, job=id_, place=place + 1, **given)
        text = orjson.dumps(response).decode() if outcome == "good" else None
        await scene.rows(PAYLOAD, id=made, response=text)
        await scene.rows(counted, job=id_, expired=int(outcome == "expired"), cost=cost)


async def over(
    scene: Scene, id_: UUID, status: str = "completed", reason: str | None = None, *, as_batch: str = "finalizing"
) -> None:
    """The batch's job ends, and its files are to be written."""
    await scene.rows(OVER, job=id_, status=status, reason=reason, as_batch=as_batch)


async def row(scene: Scene, id_: UUID) -> Any:
    """The batch's row."""
    return await scene.row("select * from batches where id = :id", id=id_)


async def leased(scene: Scene, id_: UUID, worker: str = "test-worker") -> Batch:
    """The batch, held by a worker."""
    async with scene.rt.db.hot_statement() as tx:
        found = await batches.lease(tx, id_, worker=worker, lease_s=30)
    assert found is not None
    return found
