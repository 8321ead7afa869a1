"""Lines that are rung and not started yet wait all the same when their key, team or organization is stopped."""

import pytest

from shared import ids, waiting_calls
from tests.scene import Scene, Team
from tests.workers.line_rows import Lines, accepted, bells
from workers.dispatcher import Dispatcher

HOW = (
    "update virtual_keys set {} where team_id = :id returning 1",
    "update teams set {} where id = :id returning 1",
    "update organizations set {} where id = (select organization_id from teams where id = :id) returning 1",
)
STOPS = [
    (HOW[0], "blocked = true", "blocked = false"),
    (HOW[0], "revoked_at = app_now()", "revoked_at = null"),
    (HOW[1], "status = 'suspended'", "status = 'active'"),
    (HOW[1], "status = 'paused', paused_until = app_now() + interval '1 hour'", "paused_until = app_now()"),
    (HOW[2], "status = 'suspended'", "status = 'active'"),
    (HOW[2], "status = 'paused', paused_until = null", "paused_until = app_now()"),
]


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """What the dispatcher rings and what is lost is looked for among all rows."""
    return fresh_database_url


async def states(scene: Scene, lines: Lines) -> list[tuple[str, bool]]:
    """Of each line: its state, and whether it counts as rung."""
    sql = "select state, rung_at is not null as is_rung from calls where job_id = :id order by id"
    return [(row.state, row.is_rung) for row in await scene.rows(sql, id=lines.job_id)]


async def lost(scene: Scene, *, batched: bool = True) -> int:
    """How many are to be rung again half a minute from now."""
    async with scene.later(30) as rt, rt.db.transaction() as tx:
        return len(await waiting_calls.lost(tx, batched=batched, rung_before_s=5, limit=100))


@pytest.mark.parametrize("parallel", [None, 5])
async def test_they_do_not_start_and_go_back_to_the_dispatcher(scene: Scene, parallel: int | None):
    for how, stop, go_on in STOPS:
        team = await scene.team(max_parallel_calls=parallel)
        lines = await accepted(scene, team, 2)
        await Dispatcher(scene.rt).tick()
        assert sorted(bells(scene)) == sorted(lines.ids)

        await scene.rows(how.format(stop), id=team.id)
        assert await scene.work(lines.ids) == [], stop
        assert await states(scene, lines) == [("pending", True)] * 2
        assert await lost(scene) == 0, stop
        assert await states(scene, lines) == [("pending", False)] * 2
        await Dispatcher(scene.rt).tick()
        assert bells(scene) == []

        await scene.rows(how.format(go_on), id=team.id)
        await Dispatcher(scene.rt).tick()
        assert len(await scene.work(bells(scene))) == 2, go_on


async def test_one_that_is_stopped_keeps_no_other_from_the_place_its_team_has(scene: Scene):
    team = await scene.team(max_parallel_calls=1)
    other = ids.new()
    made = "insert into virtual_keys (id, hash, hint, team_id) values (:id, :hash, '', :team) returning 1"
    await scene.rows(made, id=other, hash=other.bytes, team=team.id)
    lines = [await accepted(scene, team, 1, key_id=key) for key in (other, None)]
    await scene.rows("update calls set rung_at = app_now() where team_id = :id returning 1", id=team.id)
    await scene.rows("update virtual_keys set blocked = true where id = :id returning 1", id=other)

    [ran] = await scene.work([*lines[0].ids, *lines[1].ids])
    assert ran.id == lines[1].ids[0]


async def test_nor_while_a_circuit_is_open(scene: Scene):
    team = await scene.team()
    lines = await accepted(scene, team, 1)
    await scene.rows(
        """insert into provider_circuits (scope, litellm_model, credential, failures, failed_at, opened_at, open_until)
           values ('elsewhere', 'm', '', 9, app_now(), app_now(), app_now() + interval '1 hour') returning 1"""
    )
    await scene.rows(HOW[0].format("blocked = true"), id=team.id)
    assert await scene.work(lines.ids) == []


async def test_calls_that_were_accepted_start_and_are_rung_again_all_the_same(scene: Scene):
    team: Team = await scene.team()
    call_id = await team.call((await team.job())["job_id"])
    await scene.rows(HOW[0].format("blocked = true"), id=team.id)
    await scene.rows(HOW[1].format("status = 'suspended'"), id=team.id)

    assert await lost(scene, batched=False) == 1
    assert len(await scene.work([call_id])) == 1
