"""The renewer: leases are extended, what is lost is said once it is known, a broken connection is replaced."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from uuid import UUID

import pytest

from shared.db import hot
from shared.ids import Fence
from tests.scene import Scene, Team
from tests.silent_path import path_to
from tests.waiting import until
from workers.lease import Renewer

LEASE_S = 0.3
"""Renewed every tenth of a second."""

EXPIRE = "update calls set lease_expires_at = app_now() - interval '1 hour' where id = any(:ids) returning id"
RENEWED = "select id from calls where id = any(:ids) and lease_expires_at > app_now() - interval '1 minute'"
CONNECTIONS = (
    "select pid from pg_stat_activity where application_name = 'waybill-lease' and datname = current_database()"
)


@contextmanager
def renewing(
    scene: Scene, held: Callable[[], Collection[Fence]], *, url: str | None = None, lease_s: float = LEASE_S
) -> Iterator[list[Fence]]:
    """A renewer at work; gives the leases it reported lost."""
    lost: list[Fence] = []
    renewer = Renewer(url or scene.rt.settings.database_url, lease_s, held, lost.append, answer_s=0.5)
    renewer.start()
    try:
        yield lost
    finally:
        renewer.stop()
        assert not renewer.thread.is_alive()


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def claimed(scene: Scene, team: Team, count: int) -> list[Fence]:
    """Calls that this process holds."""
    job_id = (await team.job())["job_id"]
    ids = [UUID(await team.call(job_id)) for _ in range(count)]
    calls = await scene.worker.claim(ids)
    return sorted((call.fence for call in calls), key=lambda fence: ids.index(fence[0]))


async def renewed(scene: Scene, *fences: Fence) -> set[UUID]:
    return {row.id for row in await scene.rows(RENEWED, ids=[id_ for id_, _ in fences])}


async def expire(scene: Scene, *fences: Fence) -> None:
    assert len(await scene.rows(EXPIRE, ids=[id_ for id_, _ in fences])) == len(fences)


async def test_leases_that_are_held_are_extended_and_no_others(scene: Scene, team: Team):
    first, second, other = await claimed(scene, team, 3)
    await expire(scene, first, second, other)

    async def both() -> bool:
        return await renewed(scene, first, second, other) == {first[0], second[0]}

    with renewing(scene, lambda: [first, second]) as lost:
        await until(both, "both leases are renewed", timeout_s=10)
    assert lost == []
    assert await renewed(scene, other) == set()


async def test_a_call_that_somebody_has_locked_costs_no_other_lease(scene: Scene, team: Team):
    locked, other = await claimed(scene, team, 2)
    await expire(scene, locked, other)

    async def both() -> bool:
        return await renewed(scene, locked, other) == {locked[0], other[0]}

    async def only_the_other() -> bool:
        return await renewed(scene, locked, other) == {other[0]}

    with renewing(scene, lambda: [locked, other]) as lost:
        async with scene.rt.db.hot_transaction() as tx:
            await hot(tx, "select from calls where id = %s for update", (locked[0],))
            await until(only_the_other, "the other lease is renewed", timeout_s=2)
        await until(both, "the lease is renewed once the lock is gone", timeout_s=10)
    assert lost == []


@pytest.mark.parametrize("how", ["cancelled", "taken"])
async def test_lease_that_is_lost_is_reported(scene: Scene, team: Team, how: str):
    kept, gone = await claimed(scene, team, 2)
    if how == "cancelled":
        job_id = (await scene.row("select job_id from calls where id = :id", id=gone[0])).job_id
        answer = await team.post(f"/jobs/{job_id}/calls/{gone[0]}/cancel")
        assert answer.json()["status"] == "cancelled"
    else:
        await scene.rows("update calls set attempt = attempt + 1 where id = :id returning id", id=gone[0])
    await expire(scene, kept, gone)
    held = [kept, gone]

    async def said() -> bool:
        return bool(lost)

    with renewing(scene, lambda: held) as lost:
        await until(said, "the lost lease is reported", timeout_s=10)
        assert await renewed(scene, kept, gone) == {kept[0]}, "the other was renewed by the same statement"
    assert set(lost) == {gone}


async def test_call_that_closed_while_it_was_renewed_is_not_reported(scene: Scene, team: Team):
    (fence,) = await claimed(scene, team, 1)
    await scene.rows("update calls set attempt = attempt + 1 where id = :id returning id", id=fence[0])
    reads: list[Collection[Fence]] = []
    answers = chain([[fence]], repeat([]))

    def held() -> Collection[Fence]:
        reads.append(next(answers))
        return reads[-1]

    async def next_round() -> bool:
        return len(reads) >= 3

    with renewing(scene, held) as lost:
        await until(next_round, "the first renewal is over", timeout_s=10)
    assert reads[0] == [fence]
    assert lost == []


async def test_connection_that_breaks_is_replaced(scene: Scene, team: Team):
    (fence,) = await claimed(scene, team, 1)
    first: list[int] = []

    async def connected() -> list[int]:
        return [row.pid for row in await scene.rows(CONNECTIONS) if row.pid not in first]

    async def again() -> bool:
        return bool(await renewed(scene, fence))

    with renewing(scene, lambda: [fence]) as lost:
        first += await until(connected, "the renewer is connected", timeout_s=10)
        assert (await scene.row("select pg_terminate_backend(:pid) as ended", pid=first[0])).ended
        await expire(scene, fence)
        await until(again, "the lease is renewed again", timeout_s=10)
        assert await connected(), "on another connection"
    assert lost == [], "a lease that could not be asked for is not lost"

    async def gone() -> bool:
        return not await scene.rows(CONNECTIONS)

    await until(gone, "the renewer's connection is closed with it", timeout_s=10)


async def test_a_connection_on_which_the_database_says_nothing_is_replaced(scene: Scene, team: Team):
    (fence,) = await claimed(scene, team, 1)

    async def renewed_once() -> bool:
        return bool(await renewed(scene, fence))

    async with path_to(scene.rt.settings.database_url) as path:
        with renewing(scene, lambda: [fence], url=path.url) as lost:
            for _ in range(2):
                await expire(scene, fence)
                await until(renewed_once, "the lease is renewed", timeout_s=10)
                path.fall_silent()
        assert path.connections >= 2
    assert lost == []


async def test_a_renewal_that_failed_is_tried_again_long_before_the_next_is_due(scene: Scene):
    rounds: list[Collection[Fence]] = []

    def held() -> Collection[Fence]:
        rounds.append([(UUID(int=1), 1)])
        return rounds[-1]

    async def again() -> bool:
        return len(rounds) >= 2

    with renewing(scene, held, url="postgresql://waybill@127.0.0.1:1/waybill", lease_s=3600) as lost:
        await until(again, "the database is asked again", timeout_s=60)
    assert lost == []


async def test_it_renews_at_once_when_it_is_woken(scene: Scene, team: Team):
    (fence,) = await claimed(scene, team, 1)
    renewer = Renewer(scene.rt.settings.database_url, 3600, lambda: [fence], lambda _: None)
    renewer.start()

    async def once_more() -> bool:
        return bool(await renewed(scene, fence))

    for _ in range(2):
        await expire(scene, fence)
        renewer.wake()
        await until(once_more, "the lease is renewed", timeout_s=10)
    renewer.stop()
