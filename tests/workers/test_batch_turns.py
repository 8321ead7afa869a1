"""Whose batch is next: ends before checks, teams by turns, and nobody's place stays empty."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from shared import batches
from tests.scene import Scene, Team
from tests.waiting import until
from tests.workers.checked_batches import asked, named, read
from tests.workers.test_batches import checking, idle, worked
from workers.batches import CONNECTIONS_FOR_ONE, Batches


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """A unit takes whatever waits: here nobody else leaves any."""
    return module_database_url


def with_one_place(scene: Scene) -> Batches:
    few = scene.rt.settings.model_copy(update={"database_pool": CONNECTIONS_FOR_ONE})
    return Batches(replace(scene.rt, settings=few), "w")


async def queue(scene: Scene, team: Team, count: int) -> list[UUID]:
    return [await asked(scene, team, named(team, "a")) for _ in range(count)]


async def in_order(scene: Scene, ids: Sequence[UUID]) -> list[UUID]:
    """As they were accepted, refused or cancelled."""
    rows = await scene.rows(
        "select id from batches where id = any(:ids) order by coalesce(in_progress_at, failed_at, cancelled_at)",
        ids=list(ids),
    )
    return [row.id for row in rows]


async def test_a_batch_waits_for_one_check_of_another_teams_queue_and_teams_go_round(scene: Scene):
    heavy, busy, small = [await scene.team() for _ in range(3)]
    first, second, last = [await queue(scene, t, n) for t, n in ((heavy, 8), (busy, 3), (small, 1))]

    await worked(with_one_place(scene), first[0])

    order = await in_order(scene, [*first, *second, *last])
    assert order[:6] == [first[0], second[0], last[0], first[1], second[1], first[2]]


async def test_the_end_of_a_batch_comes_before_checks(scene: Scene):
    team, other = await scene.team(), await scene.team()
    checks = await queue(scene, team, 2)
    [over] = await queue(scene, other, 1)
    async with scene.rt.db.hot_transaction() as tx:
        assert await batches.ask_to_cancel(tx, over)

    await worked(with_one_place(scene), checks[0])

    assert (await read(scene, over)).status == "cancelled"
    assert await in_order(scene, [*checks, over]) == [over, *checks]


async def test_one_check_of_a_team_leaves_a_place_to_the_next_team_however_long_it_takes(scene: Scene):
    heavy, other = await scene.team(), await scene.team()
    found = Batches(scene.rt, "w")
    mine = await queue(scene, heavy, 3)
    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = any(%s) for update", (mine,))
        await found.take(mine)
        await checking(scene)
        [theirs] = await queue(scene, other, 1)
        await found.take([theirs])

        async def is_accepted() -> bool:
            return (await read(scene, theirs)).status == "in_progress"

        await until(is_accepted, "the check of the other team")
        assert [row.status for row in [await read(scene, id_) for id_ in mine]] == ["validating"] * 3
        rows = await scene.rows("select 1 from batches where team_id = :id and worker = 'w'", id=heavy.id)
        assert len(rows) == 1
    await idle(found)

    assert await in_order(scene, [*mine, theirs]) == [theirs, *mine]


async def test_a_dry_run_nobody_waits_for_is_left(
    scene: Scene,
):
    team = await scene.team()
    id_ = await asked(scene, team, named(team, "a"), dry_run=True)
    async with scene.rt.db.hot_statement() as tx:
        held = await batches.lease_next(tx, worker="w", lease_s=30, served=())
        assert held is not None
        assert await batches.is_checked_by(tx, id_, worker="w")
        await batches.release(tx, id_, worker="w")
    async with scene.later(86_401) as later, later.db.hot_statement() as tx:
        assert await batches.lease_next(tx, worker="w", lease_s=30, served=()) is None
        assert id_ not in await batches.unattended(tx, limit=100)
        await scene.rows("update batches set worker = 'w' where id = :id returning 1", id=id_)
        assert not await batches.is_checked_by(tx, id_, worker="w")
