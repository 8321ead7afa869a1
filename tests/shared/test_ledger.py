"""The ledger: what is held, charged and given back, also when many ask at once."""

import asyncio
from uuid import UUID

import pytest
from psycopg.errors import CheckViolation, UniqueViolation

from shared import credit_accounts, ids, ledger
from shared.db import Database
from shared.ledger import Hold, Settlement
from tests.scene import Scene, Team, agrees


async def hold(db: Database, team: Team, *job_ids: UUID, amount: int = 1) -> set[UUID]:
    """Ask the account for these jobs, first come first served, and write what it grants."""
    async with db.transaction() as tx:
        account = (await ledger.lock(tx, [team.id]))[team.id]
        granted = [Hold(job_id=id_, team_id=team.id, credits=amount) for id_ in job_ids if account.hold(amount)]
        await ledger.hold(tx, granted)
    return {held.job_id for held in granted}


async def settle(db: Database, team: Team, charge: int, *job_ids: UUID, release: int | None = None) -> dict[UUID, int]:
    changes = [
        Settlement(job_id=id_, team_id=team.id, charge=charge, release=release, reason="test") for id_ in job_ids
    ]
    async with db.transaction() as tx:
        return await ledger.settle(tx, changes)


async def held_for(scene: Scene, job: UUID) -> list[int]:
    return [row.credits for row in await scene.rows("select credits from holds where job_id = :id", id=job)]


async def test_holds_are_granted_first_come_first_served(scene: Scene):
    team, jobs = await scene.team(credits=3), [ids.new() for _ in range(5)]

    assert await hold(scene.rt.db, team, *jobs) == set(jobs[:3])
    assert await team.credits() == (3, 3, 0)
    assert await hold(scene.rt.db, team, ids.new()) == set()


async def test_a_hold_is_whole_or_not_at_all(scene: Scene):
    team = await scene.team(credits=3)
    assert await hold(scene.rt.db, team, ids.new(), amount=4) == set()
    assert await team.credits() == (3, 0, 3)


async def test_a_hold_grows_and_shrinks_on_one_row_and_goes_with_its_last_credit(scene: Scene):
    team, job = await scene.team(credits=10), ids.new()
    await hold(scene.rt.db, team, job, amount=3)
    await hold(scene.rt.db, team, job, amount=4)
    assert (await held_for(scene, job), await team.credits()) == ([7], (10, 7, 3))

    await settle(scene.rt.db, team, 0, job, release=5)
    assert (await held_for(scene, job), await team.credits()) == ([2], (10, 2, 8))

    await settle(scene.rt.db, team, 0, job)
    assert (await held_for(scene, job), await team.credits()) == ([], (10, 0, 10))


async def test_settling_charges_and_frees_the_rest_and_writes_one_entry(scene: Scene):
    team, job = await scene.team(credits=5), ids.new()
    await hold(scene.rt.db, team, job, amount=3)

    assert await settle(scene.rt.db, team, 2, job) == {job: 3}
    assert await team.credits() == (3, 0, 3)
    entry = await scene.row("select * from credit_entries where job_id = :id", id=job)
    assert (entry.kind, entry.amount, entry.before, entry.after) == ("deduction", -2, 5, 3)


async def test_entries_of_one_group_follow_each_other(scene: Scene):
    team, jobs = await scene.team(credits=10), [ids.new() for _ in range(3)]
    await hold(scene.rt.db, team, *jobs)

    assert await settle(scene.rt.db, team, 1, *jobs) == {jobs[0]: 9, jobs[1]: 8, jobs[2]: 7}
    steps = await scene.rows(
        "select before, after from credit_entries where job_id = any(:ids) order by before", ids=jobs
    )
    assert [tuple(step) for step in steps] == [(8, 7), (9, 8), (10, 9)]


async def test_a_charge_of_nothing_writes_no_entry(scene: Scene):
    team, job = await scene.team(credits=2), ids.new()
    await hold(scene.rt.db, team, job)

    assert await settle(scene.rt.db, team, 0, job) == {job: 2}
    assert await team.deductions() == []
    assert await team.credits() == (2, 0, 2)


async def test_a_job_is_never_charged_twice(scene: Scene):
    team, job = await scene.team(credits=5), ids.new()
    await hold(scene.rt.db, team, job)
    await settle(scene.rt.db, team, 1, job)

    with pytest.raises(UniqueViolation, match="credit_entries_job_id_kind"):
        await settle(scene.rt.db, team, 1, job)
    assert await team.credits() == (4, 0, 4)


async def test_the_database_itself_refuses_to_overspend(scene: Scene):
    team = await scene.team(credits=1)
    with pytest.raises(CheckViolation, match="never_overspent"):
        async with scene.rt.db.transaction() as tx:
            await credit_accounts.grant(tx, team.id, -2, kind="adjustment", reason="too much")
    assert await team.credits() == (1, 0, 1)


async def test_holds_and_settlements_from_many_connections_agree_with_the_ledger(scene: Scene):
    team, gate, charges = await scene.team(credits=20), asyncio.Semaphore(8), []

    async def one(charge: int) -> None:
        async with gate:
            job = ids.new()
            if await hold(scene.rt.db, team, job):
                await settle(scene.rt.db, team, charge, job)
                charges.append(charge)

    await asyncio.gather(*(one(n % 2) for n in range(60)))

    assert await team.deductions() == [-1] * sum(charges)
    assert await team.credits() == (20 - sum(charges), 0, 20 - sum(charges))


async def test_a_hold_that_waited_for_a_settlement_gets_the_credit_it_freed(scene: Scene):
    team, first, second = await scene.team(credits=1), ids.new(), ids.new()
    await hold(scene.rt.db, team, first)
    async with scene.rt.db.transaction() as tx:
        await ledger.settle(tx, [Settlement(job_id=first, team_id=team.id, charge=0, reason="test")])
        waiting = asyncio.create_task(hold(scene.rt.db, team, second))
        while not await scene.rows("select 1 from pg_stat_activity where wait_event_type = 'Lock'"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert await waiting == {second}
    assert await team.credits() == (1, 1, 0)


async def test_stale_holds_are_released(scene: Scene):
    team = await scene.team(credits=2)
    job = await team.job()
    await team.complete(job["job_id"])
    await hold(scene.rt.db, team, UUID(job["job_id"]))

    async with scene.rt.db.transaction() as tx:
        assert team.id in await ledger.release_stale(tx)
    await agrees(scene, team)
    assert await team.credits() == (2, 0, 2)
