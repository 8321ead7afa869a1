"""Batches that were asked for and are to be checked."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from shared import batches, clock, files, ids, jobs
from shared.batches import Batch, NewBatch
from shared.file_writing import FileWriter
from shared.jobs import Job
from shared.states import Endpoint, FilePurpose
from tests.scene import HELLO, Scene, Team
from workers import batch_checks

WINDOW_S = 86_400
WORKER = "test-worker"


def line(team: Team, custom_id: str, **fields: Any) -> dict[str, Any]:
    """A chat for the team's first model; `body` adds to its body, anything else stands in the line itself."""
    body = {"model": team.models[0], "messages": HELLO, "max_tokens": 100, **fields.pop("body", {})}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **fields}


def named(team: Team, *custom_ids: str, **fields: Any) -> list[dict[str, Any]]:
    return [line(team, custom_id, **fields) for custom_id in custom_ids]


async def input_file(scene: Scene, team: Team, lines: Sequence[dict[str, Any] | bytes]) -> UUID:
    """A file of these lines; bytes are lines as they are."""
    id_ = ids.new()
    writer = FileWriter(scene.rt.db, file_id=id_, team_id=team.id, purpose=FilePurpose.BATCH, filename="in.jsonl")
    for given in lines:
        await writer.write((given if isinstance(given, bytes) else orjson.dumps(given)) + b"\n")
    size = await writer.flush()
    async with scene.rt.db.hot_transaction() as tx:
        assert await files.finish(tx, id_, size)
    return id_


async def asked(
    scene: Scene,
    team: Team,
    lines: Sequence[dict[str, Any] | bytes] = (),
    *,
    file_id: UUID | None = None,
    **fields: Any,
) -> UUID:
    """A batch as its POST leaves it; no job with dry_run."""
    id_, given = ids.new(), {"endpoint": Endpoint.CHAT, **fields}
    key = await scene.row("select id from virtual_keys where team_id = :id and secret_of is null", id=team.id)
    new = NewBatch(
        id=id_,
        team_id=team.id,
        key_id=key.id,
        input_file_id=file_id or await input_file(scene, team, lines),
        completion_window="24h",
        window_s=WINDOW_S,
        **given,
    )
    job = Job(
        id=id_, team_id=team.id, organization_id="org", job_type="batch", is_batch=True, auto_complete=True,
        created_at=clock.now(), priority=3,
    )  # fmt: skip
    async with scene.rt.db.hot_transaction() as tx:
        if not new.dry_run:
            await jobs.create(tx, [(job, WINDOW_S)])
        await batches.create(tx, new)
    return id_


async def leased(scene: Scene, id_: UUID, worker: str = WORKER) -> Batch:
    async with scene.rt.db.hot_statement() as tx:
        found = await batches.lease(tx, id_, worker=worker, lease_s=30)
    assert found is not None
    return found


async def read(scene: Scene, id_: UUID) -> Batch:
    async with scene.rt.db.hot_statement() as tx:
        found = await batches.read(tx, id_)
    assert found is not None
    return found


async def checked(scene: Scene, id_: UUID) -> Batch:
    """The batch once a worker has checked it."""
    await batch_checks.check(scene.rt, await leased(scene, id_), WORKER)
    return await read(scene, id_)


async def lines_of(scene: Scene, id_: UUID) -> list[Any]:
    """The calls of a batch with their requests, in the order of the file."""
    return await scene.rows(
        "select c.*, p.request, p.erase_at from calls c join call_payloads p on p.call_id = c.id "
        "where c.job_id = :id order by c.position",
        id=id_,
    )


async def job_of(scene: Scene, id_: UUID) -> Any:
    return await scene.row("select * from jobs where id = :id", id=id_)
