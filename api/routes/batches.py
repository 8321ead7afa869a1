"""Batches: many requests in one; made from a file or from the lines themselves, read, listed."""

from typing import Any

from starlette.requests import Request

from api import batch_inputs, new_batch, prefer, submission
from api.auth import Caller
from api.batch_objects import GUESSES, batch_id_of, batch_object, find_batch
from api.desk import Desk
from api.gateway.face import GATEWAY
from api.held_read import held_read
from api.http import body_of, endpoint
from api.new_batch import DRY_RUN_S, VERDICT_S, Asked
from api.once import Once
from api.replies import Reply
from api.uploads import Upload
from api.wire.batch_examples import INPUT_LINES
from api.wire.batches import (
    BatchesQuery,
    BatchIn,
    BatchList,
    BatchOut,
    BatchQuery,
    BatchWaitQuery,
    DryRunOut,
    endpoint_at,
    window_s,
)
from shared import batch_lists, ids
from shared.batches import NewBatch
from shared.errors import Invalid
from shared.runtime import Runtime


@endpoint(
    "team",
    answers=BatchOut | DryRunOut,
    face=GATEWAY,
    reads=batch_inputs.received_lines,
    bodies={"application/json": BatchIn, INPUT_LINES.type: INPUT_LINES},
)
async def create_batch(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, query: BatchQuery, received: Upload | None, once: Once
) -> Reply:
    """Make a batch: from an uploaded file, from `requests`, or from lines as the body (`application/x-ndjson`).

    All lines are checked before any is run. The answer waits for that, at most 10 s (`Prefer: wait=N`: less), and is
    `validating` when it takes longer; a batch with faults is `failed`, and `errors` lists them. 402 leaves a `failed`
    batch too, whose job is in `X-Job-Id`. With `dry_run` the lines are only checked, at most 60 s long: the answer
    says what the batch would cost.
    """
    if once.job_id is not None:
        waits = new_batch.within(rt, request, VERDICT_S)
        return await new_batch.told(rt, desk, caller, once.job_id, waits, once)
    key, limit_bytes = caller.team, rt.settings.max_body_bytes
    if received is None:
        body = await body_of(request, BatchIn, limit_bytes)
    else:
        body = batch_inputs.asked_in_query(query)
    dry_run = query.dry_run or bool(body.dry_run)
    waits = new_batch.within(rt, request, DRY_RUN_S if dry_run else VERDICT_S)
    id_ = ids.new()
    callback = await submission.checked_callback(rt, "batch", id_, body)
    async with batch_inputs.opened(rt, key, body, received, dry_run=dry_run) as lines:
        new = NewBatch(
            id=id_,
            team_id=key.team_id,
            key_id=key.id,
            endpoint=endpoint_at(body.endpoint),
            input_file_id=lines.file_id,
            completion_window=body.completion_window,
            window_s=DRY_RUN_S if dry_run else window_s(body.completion_window),
            dry_run=dry_run,
            output_expires_after_s=body.output_expires_after.seconds if body.output_expires_after else None,
        )
        asked = Asked(new=new, lines=lines, metadata=body.metadata or {}, callback=callback)
        made = await new_batch.make(rt, desk, request, key, asked, once)
    if dry_run:
        return await once.store(await new_batch.checked(rt, desk, key, id_, waits, made.brought))
    return await new_batch.told(rt, desk, caller, id_, waits, once, made)


@endpoint("team", answers=BatchOut, face=GATEWAY)
async def get_batch(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, batch_id: str, query: BatchWaitQuery
) -> Reply:
    """A batch as it stands; with a wait, once it ended or (If-None-Match) changed."""

    async def read() -> tuple[dict[str, Any], bool]:
        async with rt.db.hot_statement() as tx:
            found = await find_batch(tx, caller, batch_id)
        return batch_object(found), found.is_final

    wanted = prefer.preference(request, query.wait)
    return await held_read(desk.waiters, request, batch_id_of(batch_id), wanted, read, GUESSES)


@endpoint("team", answers=BatchList, face=GATEWAY)
async def list_batches(rt: Runtime, caller: Caller, query: BatchesQuery) -> dict[str, Any]:
    """The team's batches, newest first; the next page begins `after` the last id of this one."""
    after = None if query.after is None else ids.parse_batch(query.after)
    if query.after is not None and after is None:
        raise Invalid.at(["query", "after"], "Input should be a batch's id, batch_ and 32 hex digits", "value_error.id")
    async with rt.db.hot_statement() as tx:
        found = await batch_lists.list_of_team(tx, caller.team.team_id, after=after, limit=query.limit + 1)
    shown = [batch_object(batch) for batch in found[: query.limit]]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > query.limit,
    }
