"""The lines of a batch that have ended, while it runs and after."""

from contextlib import nullcontext
from uuid import UUID

from starlette.responses import Response

from api.auth import Caller
from api.batch_objects import batch_id_of, unknown_batch
from api.desk import Desk
from api.gateway.face import GATEWAY
from api.http import endpoint
from api.line_stream import LineStream
from api.wire.batch_results import ResultsQuery
from api.wire.media import LINES
from shared import batch_results, batches
from shared.batch_results import Progress
from shared.errors import BadRequest
from shared.runtime import Runtime

NEXT_AFTER = "X-Next-After"


@endpoint("team", answers=LINES, face=GATEWAY)
async def list_results(rt: Runtime, desk: Desk, caller: Caller, batch_id: str, query: ResultsQuery) -> Response:
    """The lines that have ended, in the order in which they ended, each as in the output or the error file.

    Lines are numbered from 1 as they end, without gaps, so that the cursor is a count: with `after=N` the answer begins
    with line N + 1; an `after` beyond the batch's last line is of another batch, and is refused. `X-Next-After` is the
    cursor behind the answer's last line; it stays the same when nothing is new. With `follow=true` the answer goes on
    until the batch has ended, a blank line coming after 15 seconds of silence, and there is no such header: your cursor
    is `after` and the lines that you read. When the batch is not final after it, the connection ended early, as by an
    update of the server; go on from there.
    """
    # Those who follow come all at once when another process ended: they take turns at the few connections.
    async with desk.lines.turn if query.follow else nullcontext():
        id_, found = await _find(rt, caller, batch_id)
    if query.after > found.lines:
        raise BadRequest(f"after is {query.after}, but the batch has {found.lines} lines", param="after")
    if query.follow:
        return LineStream(desk.lines.follow(id_, found), desk.pace, after=query.after, until=None, headers={})
    until = max(query.after, min(query.after + query.limit, found.ended))
    reader = desk.lines.reader(id_, found)
    return LineStream(reader, desk.pace, after=query.after, until=until, headers={NEXT_AFTER: str(until)})


async def _find(rt: Runtime, caller: Caller, batch_id: str) -> tuple[UUID, Progress]:
    """The batch and how far it is. Raises NotFound."""
    id_ = batch_id_of(batch_id)
    async with rt.db.hot_statement() as tx:
        batch = await batches.read(tx, id_)
        if batch is None or batch.dry_run or not caller.may_see(batch.team_id):
            raise unknown_batch(batch_id)
        return batch.id, (await batch_results.progress(tx, [batch.id]))[batch.id]
