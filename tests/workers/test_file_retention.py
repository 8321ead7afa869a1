"""Files that are expired and uploads that were left behind are deleted, in steps; never what a running batch reads."""

from collections.abc import Sequence

import pytest

from shared import batches, files, ids
from shared.batches import NewBatch
from shared.file_writing import FileWriter
from shared.files import CHUNK_BYTES, File
from shared.runtime import Runtime
from shared.states import Endpoint, FilePurpose
from tests.api.admin import unique
from tests.scene import Scene
from workers import retention

DAY_S = 86_400
HOUR_S = 3600


@pytest.fixture
def settings(settings, module_database_url):
    return settings.model_copy(update={"database_url": module_database_url})


@pytest.fixture
async def team_id(scene: Scene) -> str:
    team: str = (await scene.api.team(team_id=unique("team")))["team_id"]
    return team


async def written(rt: Runtime, team_id: str, *, chunks: int = 1, whole: bool = True) -> FileWriter:
    purpose = FilePurpose.BATCH
    writer = FileWriter(rt.db, file_id=ids.new(), team_id=team_id, purpose=purpose, filename="in.jsonl")
    await writer.write(b"x" * (chunks * CHUNK_BYTES))
    if whole:
        async with rt.db.hot_transaction() as tx:
            assert await files.finish(tx, writer.file_id, await writer.flush())
    return writer


async def batch_of(rt: Runtime, team_id: str, writer: FileWriter) -> NewBatch:
    """A dry run on a file: it has no job."""
    batch = NewBatch(
        id=ids.new(), team_id=team_id, key_id=ids.new(), endpoint=Endpoint.CHAT, input_file_id=writer.file_id,
        completion_window="24h", window_s=DAY_S, dry_run=True,
    )  # fmt: skip
    async with rt.db.transaction() as tx:
        await batches.create(tx, batch)
    return batch


async def real_batch_of(scene: Scene, team_id: str, writer: FileWriter) -> NewBatch:
    """A batch that waits to be checked."""
    batch = await batch_of(scene.rt, team_id, writer)
    await scene.rows("update batches set dry_run = false where id = :id returning id", id=batch.id)
    return batch


async def left(scene: Scene, team_id: str, seconds: float) -> Sequence[int]:
    """After a round so long from now: the number of chunks of each file that is still there."""
    async with scene.later(seconds) as rt:
        await retention.rounds(rt).run()
    counted = "select (select count(*) from file_chunks c where c.file_id = f.id) as n from files f where team_id = :id"
    return [row.n for row in await scene.rows(counted, id=team_id)]


async def test_a_file_is_deleted_when_it_expires(scene: Scene, team_id: str):
    await written(scene.rt, team_id, chunks=2)
    assert await left(scene, team_id, 30 * DAY_S - 60) == [2]
    assert await left(scene, team_id, 30 * DAY_S + 60) == []


async def test_an_expired_file_is_not_seen_before_it_is_deleted(scene: Scene, team_id: str):
    writer = await written(scene.rt, team_id)

    async def seen(seconds: float) -> tuple[File | None, bool, int]:
        async with scene.later(seconds) as rt, rt.db.hot_transaction() as tx:
            found = await files.read(tx, writer.file_id, team_id)
            listed = await files.list_of_team(tx, team_id, purpose=None, after=None, order="asc", limit=9)
            return found, await files.hold(tx, writer.file_id, team_id), len(listed)

    assert (await seen(30 * DAY_S - 60))[1:] == (True, 1)
    assert await seen(30 * DAY_S + 60) == (None, False, 0)


async def test_what_a_running_batch_reads_stays_until_the_batch_has_ended(scene: Scene, team_id: str):
    batch = await real_batch_of(scene, team_id, await written(scene.rt, team_id))
    assert await left(scene, team_id, 31 * DAY_S) == [1]
    await scene.rows("update batches set status = 'failed' where id = :id returning id", id=batch.id)
    assert await left(scene, team_id, 31 * DAY_S) == []


async def test_an_upload_that_was_left_behind_is_deleted_after_an_hour(scene: Scene, team_id: str):
    await written(scene.rt, team_id, chunks=3, whole=False)
    assert await left(scene, team_id, HOUR_S - 60) == [3]
    assert await left(scene, team_id, HOUR_S + 60) == []


async def test_what_a_broken_off_deletion_left_is_deleted(scene: Scene, team_id: str):
    writer = await written(scene.rt, team_id, chunks=2, whole=False)
    async with scene.rt.db.hot_transaction() as tx:
        assert await files.discard(tx, [writer.file_id]) == [writer.file_id]
        assert await files.delete_chunks(tx, limit=1) == 1
        assert await files.delete_hidden(tx, limit=9) == 0
    assert await left(scene, team_id, 0) == []


async def test_the_row_of_a_dry_run_is_kept_for_an_hour(scene: Scene, team_id: str):
    dry = await batch_of(scene.rt, team_id, await written(scene.rt, team_id))
    real = await real_batch_of(scene, team_id, await written(scene.rt, team_id))
    for seconds, kept in ((HOUR_S - 60, {dry.id, real.id}), (HOUR_S + 60, {real.id})):
        await left(scene, team_id, seconds)
        rows = await scene.rows("select id from batches where team_id = :id", id=team_id)
        assert {row.id for row in rows} == kept
