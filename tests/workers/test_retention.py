"""What is kept no longer is deleted: texts by age or at once, idempotency keys after a day."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest

from shared.runtime import Runtime
from tests import scene as scenes
from tests.scene import HELLO, Scene, Team
from workers import retention

DAY_S = 86_400


@pytest.fixture
def settings(settings, fresh_database_url):
    return settings.model_copy(update={"database_url": fresh_database_url})


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def ended_call(scene: Scene, team: Team) -> tuple[str, str]:
    job = await team.job(calls=[{"messages": HELLO}])
    call_id = job["calls"][0]["call_id"]
    await scene.work_on(call_id)
    return job["job_id"], call_id


async def test_old_texts_are_erased_and_the_rest_of_the_call_stays(scene: Scene, team: Team):
    job_id, call_id = await ended_call(scene, team)
    before = await team.read(job_id, call_id)
    async with scene.later(29 * DAY_S) as rt:
        assert (await retention.rounds(rt).run())["old_payloads"] == 0
    async with scene.later(30 * DAY_S + 60) as rt:
        assert (await retention.rounds(rt).run())["old_payloads"] == 1
    after = await team.read(job_id, call_id)
    assert (before["payload_expired"], after["payload_expired"]) == (False, True)
    assert after["response"] is after["choices"] is None
    assert (after["usage"], after["cost_usd"], after["status"]) == (before["usage"], before["cost_usd"], "completed")


async def test_texts_of_a_call_that_still_runs_are_not_erased(scene: Scene, team: Team):
    await team.job(calls=[{"messages": HELLO}])
    async with scene.later(40 * DAY_S) as rt:
        assert (await retention.rounds(rt).run())["old_payloads"] == 0


@pytest.fixture(params=["team", "setting"])
async def unstored(request: pytest.FixtureRequest, runtime: Runtime) -> AsyncIterator[tuple[Scene, Team]]:
    """A team whose texts are not stored, by its own terms or by the installation's."""
    settings = runtime.settings.model_copy(update={"store_payloads": request.param == "team"})
    async with scenes.opened(replace(runtime, settings=settings)) as scene:
        team = await scene.team()
        if request.param == "team":
            sql = "update teams set store_payloads = false where id = :id returning id"
            await scene.rows(sql, id=team.id)
        yield scene, team


async def test_texts_that_are_not_to_be_stored_are_erased_an_hour_after_the_end(unstored: tuple[Scene, Team]):
    scene, team = unstored
    job_id, call_id = await ended_call(scene, team)
    assert (await team.read(job_id, call_id))["response"]["content"] == "Paris"
    async with scene.later(3500) as rt:
        assert (await retention.rounds(rt).run())["unstored_payloads"] == 0
    async with scene.later(3700) as rt:
        assert (await retention.rounds(rt).run())["unstored_payloads"] == 1
    assert (await team.read(job_id, call_id))["payload_expired"] is True


async def test_a_stored_text_is_not_erased_after_an_hour(scene: Scene, team: Team):
    await ended_call(scene, team)
    async with scene.later(3700) as rt:
        assert (await retention.rounds(rt).run())["unstored_payloads"] == 0


async def test_texts_that_are_not_to_be_stored_are_kept_for_an_hour_however_late_the_end(unstored: tuple[Scene, Team]):
    scene, team = unstored
    job_id, call_id = await ended_call(scene, team)
    sql = "update calls set completed_at = app_now() + interval '1800 s' where job_id = :id returning 1"
    await scene.rows(sql, id=UUID(job_id))
    for seconds, erased in ((3700, 0), (5300, 0), (5500, 1)):
        async with scene.later(seconds) as rt:
            assert (await retention.rounds(rt).run())["unstored_payloads"] == erased
    assert (await team.read(job_id, call_id))["payload_expired"] is True


async def test_one_broken_step_stops_no_other(scene: Scene, team: Team):
    await team.post("/jobs/create", {"team_id": team.id, "job_type": "t"}, Idempotency_Key="k")
    async with scene.rt.db.transaction() as tx:
        await tx.exec_driver_sql("alter table admin_sessions rename to none")
    async with scene.later(DAY_S + 3700) as rt:
        found = await retention.rounds(rt).run()
    assert "admin_sessions" not in found
    assert (found["idempotency_keys"], found["files"]) == (1, 0)


async def test_a_replay_after_erasure_has_the_same_call_without_its_texts(scene: Scene, team: Team):
    scene.live = True
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    first = await team.post(path, body, Idempotency_Key="k")
    await scene.rows("delete from call_payloads returning call_id")
    again = await team.post(path, body, Idempotency_Key="k")
    assert (again.status_code, again.json()["call_id"]) == (200, first.json()["call_id"])
    assert again.json()["response"] is None
    assert again.json()["usage"] == first.json()["usage"]


async def test_keys_are_kept_for_a_day_and_deleted_after_it(scene: Scene, team: Team):
    await team.post("/jobs/create", {"team_id": team.id, "job_type": "t"}, Idempotency_Key="k")
    async with scene.later(DAY_S) as rt:
        assert (await retention.rounds(rt).run())["idempotency_keys"] == 0
    async with scene.later(DAY_S + 3700) as rt:
        assert (await retention.rounds(rt).run())["idempotency_keys"] == 1
