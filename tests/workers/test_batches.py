"""Who takes batches: a few at once, each by one worker, and again by another when it died or failed."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from shared import batches
from shared.db import Database
from tests.money import in_order
from tests.scene import Scene, Team
from tests.waiting import until
from tests.workers.checked_batches import asked, job_of, leased, line, lines_of, named, read
from workers.batches import AT_ONCE, Batches

WAITS_FOR_A_ROW = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """A unit takes whatever waits: here nobody else leaves any."""
    return module_database_url


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def worked(found: Batches, *ids: UUID) -> None:
    """A message with these comes, and all that follows from it is done."""
    assert found.reserve(len(ids))
    await found.take(ids)
    await idle(found)


async def idle(found: Batches) -> None:
    """Nothing is left to do."""
    async with asyncio.timeout(60):
        while found.tasks:
            await asyncio.wait(found.tasks)


async def checking(scene: Scene) -> None:
    """A check has come to the job, which somebody has locked."""
    await until(lambda: scene.rows(WAITS_FOR_A_ROW), "a check that waits for its job")


async def statuses(scene: Scene, ids: list[UUID]) -> list[str]:
    return [(await read(scene, id_)).status for id_ in ids]


async def unattended(scene: Scene, id_: UUID) -> bool:
    """Whether the sweeper rings it again now."""
    async with scene.rt.db.hot_statement() as tx:
        return id_ in await batches.unattended(tx, limit=1000)


async def test_all_of_a_message_are_checked_whatever_is_wrong_with_one(scene: Scene, team: Team):
    ids = [await asked(scene, team, lines) for lines in (named(team, "a"), [b"{"], named(team, "c"))]
    found = Batches(scene.rt, "w")

    await worked(found, *ids)

    assert await statuses(scene, ids) == ["in_progress", "failed", "in_progress"]
    assert found.has_room()
    await worked(found, *ids)
    assert [len(await lines_of(scene, id_)) for id_ in ids] == [1, 0, 1]
    await in_order(scene, team)


async def test_a_unit_works_on_no_more_than_it_may_at_once_and_one_bell_is_enough_for_all(scene: Scene, team: Team):
    ids = [await asked(scene, team, named(team, "a")) for _ in range(AT_ONCE + 2)]
    found = Batches(scene.rt, "w")

    assert found.reserve(len(ids))
    assert not found.has_room()
    await found.take(ids)
    for id_ in ids:
        await found.take([id_])
    assert len(found.tasks) == AT_ONCE
    assert not found.has_room()
    await idle(found)

    assert found.has_room()
    assert await statuses(scene, ids) == ["in_progress"] * len(ids)
    assert [len(await lines_of(scene, id_)) for id_ in ids] == [1] * len(ids)


async def test_a_unit_with_few_connections_takes_one_at_a_time(scene: Scene):
    few = scene.rt.settings.model_copy(update={"database_pool": 2})
    found = Batches(replace(scene.rt, settings=few), "w")
    assert found.reserve(1)
    assert not found.has_room()


async def test_a_closed_door_sends_waiting_threads_home(scene: Scene):
    found = Batches(scene.rt, "w")
    assert found.reserve(AT_ONCE)
    waiting = asyncio.create_task(asyncio.to_thread(found.reserve, 1))
    await asyncio.sleep(0)
    found.close_door()
    assert not await waiting
    assert not found.has_room()


async def test_a_batch_that_is_cut_leaves_nothing_and_is_anybodys(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, *"abc"))
    found = Batches(scene.rt, "w")
    async with scene.rt.db.hot_transaction() as tx:
        # The check gets as far as the job, with its lines written.
        await tx.execute("select from jobs where id = %s for update", (id_,))
        await found.take([id_])
        await found.take([id_])
        await checking(scene)
        assert await found.drain(0) == 1
        assert not [task for task in asyncio.all_tasks() if "_turn" in repr(task)]

    assert (await read(scene, id_)).status == "validating"
    assert await lines_of(scene, id_) == []
    assert await unattended(scene, id_)
    await worked(Batches(scene.rt, "other"), id_)
    assert [c.custom_id for c in await lines_of(scene, id_)] == ["a", "b", "c"]
    assert await team.credits() == (1000, 3, 997)
    await in_order(scene, team)


async def test_a_batch_whose_worker_died_is_taken_once_its_lease_is_over(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    await leased(scene, id_, "dead")
    found = Batches(scene.rt, "w")

    await worked(found, id_)
    assert (await read(scene, id_)).status == "validating"
    async with scene.later(31) as later:
        await worked(Batches(later, "w"), id_)
    assert (await read(scene, id_)).status == "in_progress"


async def test_a_bell_that_comes_while_a_unit_is_full_is_heard(scene: Scene, team: Team):
    one = scene.rt.settings.model_copy(update={"database_pool": 4})
    first, second = [await asked(scene, team, named(team, "a")) for _ in range(2)]
    found = Batches(replace(scene.rt, settings=one), "w")
    await leased(scene, second, "dying")
    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = %s for update", (first,))
        await found.take([first])
        await checking(scene)
        async with scene.rt.db.hot_statement() as other:
            await batches.release(other, second, worker="dying")
        await found.take([second])
        assert len(found.tasks) == 1
    await idle(found)

    assert await statuses(scene, [first, second]) == ["in_progress", "in_progress"]


async def test_a_batch_that_stands_where_it_stood_is_not_the_next_again_at_once(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    # As no statement leaves it: its job goes on.
    await scene.rows(
        "update batches set status = 'finalizing', finalizing_at = app_now() where id = :i returning 1", i=id_
    )

    await worked(Batches(scene.rt, "w"), id_)

    assert await statuses(scene, [id_]) == ["finalizing"]
    assert not await unattended(scene, id_)
    async with scene.later(2) as later, later.db.hot_statement() as tx:
        assert id_ in await batches.unattended(tx, limit=1000)
    await scene.rows("delete from batches where id = :id returning 1", id=id_)


async def test_a_lease_that_is_lost_ends_the_work(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    patient = Database(
        scene.rt.settings.database_url, pool=8, session={"lock_timeout": "60s", "statement_timeout": "60s"}
    )
    settings = scene.rt.settings.model_copy(update={"lease_s": 0.15})
    found = Batches(replace(scene.rt, settings=settings, db=patient), "w")
    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = %s for update", (id_,))
        await found.take([id_])
        await checking(scene)
        [work] = found.tasks
        await scene.rows("update batches set worker = 'other', lease_expires_at = app_now() + interval '1 minute' "
                         "where id = :id returning 1", id=id_)  # fmt: skip
        await asyncio.wait([work])
    assert work.cancelled()
    await idle(found)
    await patient.close()
    assert await lines_of(scene, id_) == []
    await scene.rows("delete from batches where id = :id returning 1", id=id_)


async def test_a_lease_that_was_given_up_with_the_verdict_does_not_end_the_work(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    settings = scene.rt.settings.model_copy(update={"lease_s": 0.03})
    found = Batches(replace(scene.rt, settings=settings), "w")
    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = %s for update", (id_,))
        await found.take([id_])
        await checking(scene)
        [work] = found.tasks
        # As the verdict leaves it, while whoever reached it still has something to do.
        await scene.rows("update batches set worker = null, lease_expires_at = null where id = :id returning 1", id=id_)

        async def is_not_renewed() -> bool:
            return not [task for task in asyncio.all_tasks() if "_renew" in repr(task)]

        await until(is_not_renewed, "the end of the renewals")
        assert not work.cancelling()
    await idle(found)
    assert not work.cancelled()


async def test_trouble_of_the_database_costs_the_batch_nothing(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    url = scene.rt.settings.database_url
    hurried = Database(url, pool=4, name="hurried", session={"lock_timeout": "20ms"})
    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = %s for update", (id_,))
        await worked(Batches(replace(scene.rt, db=hurried), "w"), id_)
    await hurried.close()

    assert (await read(scene, id_)).status == "validating"
    assert not await unattended(scene, id_), "it is not tried again at once"
    async with scene.later(1.1) as later, later.db.hot_statement() as tx:
        assert id_ in await batches.unattended(tx, limit=1000)
    async with scene.rt.db.hot_transaction() as tx:
        assert await batches.ask_to_cancel(tx, id_)
    assert await unattended(scene, id_), "there is nothing to wait for before it is cancelled"


async def test_a_batch_at_which_the_check_itself_fails_is_refused(scene: Scene, team: Team):
    id_ = await asked(scene, team, [line(team, "a")])
    await scene.rows("update model_aliases set fallbacks = '{x}' where alias = :a returning 1", a=team.models[0])
    broken = replace(scene.rt, prices=None)  # type: ignore[arg-type]

    await worked(Batches(broken, "w"), id_)

    found, job = await read(scene, id_), await job_of(scene, id_)
    assert [(e["code"], e["line"]) for e in found.errors or []] == [("internal_error", None)]
    assert (found.status, job.status, await lines_of(scene, id_)) == ("failed", "failed", [])
    await in_order(scene, team)


async def test_a_batch_that_was_cancelled_while_it_was_checked_is_finished_by_the_same_turn(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    async with scene.rt.db.hot_transaction() as tx:
        assert await batches.ask_to_cancel(tx, id_)
    await worked(Batches(scene.rt, "w"), id_)

    found = await read(scene, id_)
    assert (found.status, (await job_of(scene, id_)).status) == ("cancelled", "cancelled")
    assert found.output_file_id is not None
    assert await lines_of(scene, id_) == []
    await in_order(scene, team)
