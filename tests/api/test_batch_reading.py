"""A batch is read while it runs: counts that add up, waits, ETags, the time it will take."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from starlette.requests import Request

from api.held_read import held_read
from api.new_batch import judged
from api.prefer import Preference
from shared import ids
from tests.api.batch_requests import batch_of, ended, read, run, send, shown, tended, uuid_of
from tests.ended_lines import begun, more, row
from tests.scene import Scene, Team


async def test_counts_add_up_while_lines_run(scene: Scene, team: Team):
    async with tended(scene):
        batch = await batch_of(team, "a", "b", "c")
        scene.provider.held.clear()
        running = asyncio.create_task(run(team, batch, "a", "b"))
        await scene.provider.until_asked(2)
        counts = (await read(team, batch["id"]))["request_counts"]
        assert (counts["in_progress"], counts["pending"], counts["completed"]) == (2, 1, 0)
        scene.provider.held.set()
        await running
        counts = (await read(team, batch["id"]))["request_counts"]
        assert (counts["in_progress"], counts["pending"], counts["completed"]) == (0, 1, 2)
        assert (await ended(team, batch))["request_counts"]["completed"] == 3


async def test_expired_lines_are_counted_by_themselves_and_the_others_summed_up_by_code(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad", "bad", "expired", "cancelled")
    batch = await read(team, f"batch_{id_.hex}")
    assert batch["request_counts"] == {
        "total": 5, "completed": 1, "failed": 2, "pending": 0, "in_progress": 0, "cancelled": 1, "expired": 1,
    }  # fmt: skip
    assert batch["error_summary"] == [{"code": "provider_rate_limit", "count": 2}]


AGE = "update batches set in_progress_at = app_now() - make_interval(days => 1) where id = :id returning id"
LINES = "update jobs set calls_total = :total where id = :id returning id"


async def test_the_end_is_estimated_from_the_pace_so_far(scene: Scene, team: Team):
    id_ = await begun(scene, team)
    assert (await read(team, f"batch_{id_.hex}"))["estimated_completion_at"] is None
    await more(scene, id_, "good")
    # One of four in a day: three more take three.
    await scene.rows(LINES, id=id_, total=4)
    await scene.rows(AGE, id=id_)
    now = float((await scene.row("select extract(epoch from app_now()) as now")).now)
    batch = await read(team, f"batch_{id_.hex}")
    assert batch["estimated_completion_at"] == pytest.approx(now + 3 * 86_400, abs=60)


async def test_an_etag_is_the_same_until_something_happens(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    # So slow that the estimate is another in each read.
    await scene.rows(LINES, id=id_, total=90_000)
    await scene.rows(AGE, id=id_)
    first, later = [await send(team, "GET", f"/batch_{id_.hex}") for _ in range(2)]
    assert shown(later)["estimated_completion_at"] > shown(first)["estimated_completion_at"]
    assert later.headers["etag"] == first.headers["etag"]
    known = {"If_None_Match": first.headers["etag"]}
    assert (await send(team, "GET", f"/batch_{id_.hex}", **known)).status_code == 304
    await more(scene, id_, "good")
    assert (await send(team, "GET", f"/batch_{id_.hex}", **known)).status_code == 200


async def test_a_wait_lasts_until_the_files_are_there_and_not_until_the_last_line(scene: Scene, team: Team):
    async with tended(scene) as unit:
        batch = await batch_of(team, "a")
        scene.tend = None
        waiting = asyncio.create_task(send(team, "GET", f"/{batch['id']}?wait=10"))
        await run(team, batch)
        assert (await read(team, batch["id"]))["status"] == "finalizing"
        assert not waiting.done()
        await unit.take([uuid_of(batch)])
        over = shown(await waiting)
        assert (over["status"], bool(over["output_file_id"])) == ("completed", True)


async def test_reads_see_the_clients_own_batches_only(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    other = await scene.team()
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry")):
        found = await send(other, method, f"/batch_{id_.hex}{path}", {} if path else None)
        assert found.status_code == 404
    row = await scene.row("select status from batches where id = :id", id=UUID(hex=id_.hex))
    assert row.status == "in_progress"


async def test_a_database_that_is_away_for_a_moment_does_not_hide_that_a_batch_was_taken(scene: Scene, team: Team):
    id_ = await begun(scene, team)
    desk, tries = scene.app.state.desk, []

    async def read() -> Any:
        tries.append(id_)
        if len(tries) == 1:
            asyncio.get_running_loop().call_soon(desk.waiters.wake, [id_])
            raise ConnectionError
        return await row(scene, id_)

    found = await judged(desk, id_, Preference(wait_s=5, applied=None), read)
    assert (found.status, len(tries)) == ("in_progress", 2)
    tries.clear()
    with pytest.raises(ConnectionError):
        await judged(desk, id_, Preference(wait_s=0, applied=None), read)


async def test_a_wait_that_something_else_wakes_waits_on_and_does_not_spin(scene: Scene):
    waiters, id_, reads = scene.app.state.desk.waiters, ids.new(), []

    async def read() -> tuple[dict[str, Any], bool]:
        reads.append(id_)
        return {}, len(reads) == 3

    request = Request({"type": "http", "headers": []})
    held = asyncio.create_task(held_read(waiters, request, id_, Preference(wait_s=5, applied=None), read))
    for seen in (1, 2):
        await asyncio.sleep(0.02)
        assert len(reads) == seen
        waiters.wake([id_])
    assert (await held).status == 200
