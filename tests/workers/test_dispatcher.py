"""The dispatcher: calls before lines, teams by weight; limits and slowed providers hold theirs and nobody else's."""

from dataclasses import replace
from uuid import UUID

import pytest

from shared import waiting_calls
from shared.db import Database, hot
from shared.dispatching import FLOWS, HEADS_READ
from shared.messages import RunCalls
from shared.runtime import redis_client
from tests.scene import HELLO, Scene, Team, refused
from tests.workers.lines import Lines, accepted, bells, of_teams
from workers.dispatcher import LEAST_WINDOW, LINES_DOWN_S, Dispatcher, LineWindow

MANY = LEAST_WINDOW + 8


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """The dispatcher looks at every row there is."""
    return fresh_database_url


@pytest.fixture
def dispatcher(scene: Scene) -> Dispatcher:
    return Dispatcher(scene.rt)


async def team_with(scene: Scene, **fields: object) -> Team:
    """A team with these limits, or this weight."""
    team = await scene.team()
    for name, value in fields.items():
        await scene.rows(f"update teams set {name} = :value where id = :id returning id", value=value, id=team.id)
    return team


async def at(scene: Scene, provider: str) -> Team:
    """A team whose models are of this provider."""
    return await scene.team(alias={"litellm_model": f"{provider}/some-model"})


async def key_of(scene: Scene, team: Team, **limits: int) -> UUID:
    """Another key of the team."""
    columns = "".join(f", {name}" for name in limits)
    values = "".join(f", {value}" for value in limits.values())
    query = f"""insert into virtual_keys (id, hash, hint, team_id{columns})
                values (gen_random_uuid(), sha256(gen_random_uuid()::text::bytea), '', :team{values}) returning id"""
    found: UUID = (await scene.row(query, team=team.id)).id
    return found


async def state_of(scene: Scene, line: UUID) -> tuple[str, bool, int]:
    """Its state, whether it counts as rung, and its failures."""
    row = await scene.row("select state, rung_at is not null as rung, failures from calls where id = :id", id=line)
    return row.state, row.rung, row.failures


async def test_lines_are_rung_in_their_own_lane_and_in_the_order_of_the_file(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    job = await team.job(calls=[{"messages": HELLO}] * 70)
    lines = await accepted(scene, team, 3)
    bells(scene, RunCalls)

    assert await dispatcher.tick() == 6 + 3
    assert {str(id_) for id_ in bells(scene, RunCalls)} == {call["call_id"] for call in job["calls"][64:]}
    assert bells(scene) == lines.ids
    assert await dispatcher.tick() == 0


async def test_no_more_lines_are_rung_than_workers_take_and_more_when_they_took_them(
    scene: Scene, dispatcher: Dispatcher
):
    lines = await accepted(scene, await scene.team(), MANY)
    assert await dispatcher.tick() == LEAST_WINDOW
    assert await dispatcher.tick() == 0

    await scene.worker.claim(bells(scene))
    assert await dispatcher.tick() == MANY - LEAST_WINDOW
    assert bells(scene) == lines.ids[LEAST_WINDOW:]


def test_a_burst_of_claims_is_not_taken_for_speed():
    window = LineWindow()
    window.rang(500)
    window.saw(0)
    assert LEAST_WINDOW < window.size < 250


async def test_lines_that_cannot_be_looked_at_keep_no_call_waiting(scene: Scene):
    await accepted(scene, await scene.team(), 1)
    job = await (await scene.team()).job(calls=[{"messages": HELLO}] * 65)
    bells(scene, RunCalls)
    url = scene.rt.settings.database_url
    hurried = Database(url, pool=2, name="hurried", session={"lock_timeout": "20ms"})
    dispatcher = Dispatcher(replace(scene.rt, db=hurried))
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "lock provider_slowdowns in access exclusive mode")
        assert (await dispatcher.tick(), len(job["calls"])) == (1, 65)
        assert await dispatcher.tick() == 0
    await hurried.close()
    assert bells(scene) == []
    assert dispatcher.pause_s <= LINES_DOWN_S


async def test_it_looks_again_soon_only_while_there_is_work_for_workers_or_a_place_to_wait_for(scene: Scene):
    patient = replace(scene.rt, settings=scene.rt.settings.model_copy(update={"dispatch_s": 30}))
    idle, held, busy = Dispatcher(patient), Dispatcher(patient), Dispatcher(patient)
    await idle.tick()
    await accepted(scene, await team_with(scene, rpm_limit=0), 1)
    await held.tick()
    await accepted(scene, await team_with(scene, max_parallel_calls=0), 1)
    await busy.tick()
    assert (idle.pause_s, held.pause_s) == (30, 30)
    assert busy.pause_s < 30


async def test_teams_have_turns_by_weight_and_priority_orders_a_teams_own(scene: Scene, dispatcher: Dispatcher):
    heavy, light = await team_with(scene, weight=3), await scene.team()
    later = await accepted(scene, heavy, MANY)
    sooner = await accepted(scene, heavy, 2, priority=5)
    await accepted(scene, light, MANY)

    await dispatcher.tick()
    rung = bells(scene)
    assert await of_teams(scene, rung) == {heavy.id: 24, light.id: 8}
    assert [id_ for id_ in rung if id_ in {*sooner.ids, *later.ids}][:3] == [*sooner.ids, later.ids[0]]


async def test_a_batch_that_comes_later_begins_with_the_next_look(scene: Scene, dispatcher: Dispatcher):
    await accepted(scene, await scene.team(), 3 * MANY)
    await dispatcher.tick()
    await scene.worker.claim(bells(scene))

    second = await scene.team()
    await accepted(scene, second, 3 * MANY)
    await dispatcher.tick()
    assert (await of_teams(scene, bells(scene)))[second.id] >= LEAST_WINDOW // 2


async def test_lines_that_are_not_due_or_too_late_are_not_rung(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    waiting, late, due = [await accepted(scene, team, 1, window_s=window_s) for window_s in (9_999, 5, 9_999)]
    await scene.rows(
        "update calls set run_at = run_at + interval '60 s' where job_id = :id returning id", id=waiting.job_id
    )
    async with scene.later(10) as rt:
        await Dispatcher(rt).tick()
    assert bells(scene) == due.ids
    async with scene.later(61) as rt:
        await Dispatcher(rt).tick()
    assert bells(scene) == waiting.ids
    assert await state_of(scene, late.ids[0]) == ("pending", False, 0)


HELD = [
    ("virtual_keys set blocked", "true", "false"),
    ("virtual_keys set revoked_at", "app_now()", "null"),
    ("teams set status", "'suspended'", "'active'"),
    ("teams set status", "'paused'", "'active'"),
    ("organizations set status", "'suspended'", "'active'"),
]


async def test_lines_wait_while_their_key_or_team_is_stopped_and_go_on_after(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, 2)
    of = {"virtual_keys": "team_id", "teams": "id", "organizations": "id"}
    for change, stopped, again in HELD:
        update = f"update {change} = {{}} where {of[change.split()[0]]} = :id returning id"
        id_ = (await scene.row("select organization_id as id from teams where id = :id", id=team.id)).id
        given = id_ if change.startswith("organizations") else team.id
        await scene.rows(update.format(stopped), id=given)
        assert await dispatcher.tick() == 0, change
        await scene.rows(update.format(again), id=given)
    await scene.rows("update virtual_keys set expires_at = app_now() where team_id = :id returning id", id=team.id)
    assert await dispatcher.tick() == 2
    assert bells(scene) == lines.ids, "what a key brought before it expired runs"


async def test_lines_behind_many_that_are_held_are_found(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    held, free = await key_of(scene, team), await key_of(scene, team)
    await accepted(scene, team, HEADS_READ * LEAST_WINDOW + 1, key_id=held)
    await scene.rows("update virtual_keys set blocked = true where id = :id returning id", id=held)
    later = await accepted(scene, team, 2, key_id=free)
    sooner = await accepted(scene, team, 1, key_id=free, priority=-1)

    assert await dispatcher.tick() == 3
    assert bells(scene) == [*later.ids, *sooner.ids]


async def test_a_team_with_very_many_flows_is_visited_in_parts(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, FLOWS + 2)
    await scene.rows(
        """with named as (update calls set candidates = array['alias-' || 1000 + position] where job_id = :id
                          returning candidates[1] as alias, position)
           insert into model_aliases (alias, litellm_model, provider, actual_model, display_name)
           select alias, 'm', case when position <= :held then 'refusing' else 'other' end, 'm', alias from named
           returning alias""",
        id=lines.job_id,
        held=FLOWS,
    )
    await scene.rows(
        """insert into provider_slowdowns (provider, refused_at, until, in_flight)
           values ('refusing', app_now(), app_now() + interval '60 s', 2) returning provider"""
    )
    assert [await dispatcher.tick(), await dispatcher.tick(), await dispatcher.tick()] == [0, 1, 0]
    assert bells(scene) == lines.ids[-1:]


async def test_a_line_that_is_tried_again_stands_behind_those_that_were_there(scene: Scene, dispatcher: Dispatcher):
    lines = await accepted(scene, await scene.team(), 3)
    await scene.rows("update calls set run_at = app_now() where id = :id returning id", id=lines.ids[0])
    await dispatcher.tick()
    assert bells(scene) == [*lines.ids[1:], lines.ids[0]]


async def test_a_team_of_many_models_has_its_order(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, 2 * LEAST_WINDOW)
    await scene.rows(
        "update calls set candidates = array['m' || position] where job_id = :id returning id", id=lines.job_id
    )
    sooner = await accepted(scene, team, 3, priority=5)
    await dispatcher.tick()
    assert bells(scene) == [*sooner.ids, *lines.ids[: LEAST_WINDOW - 3]]


async def test_lines_leave_a_teams_own_calls_alone(scene: Scene):
    """They count neither among the 64, nor in max_queued_calls, nor in a key's max_parallel_requests."""
    team = await team_with(scene, max_queued_calls=1)
    await scene.rows("update virtual_keys set max_parallel_requests = 1 where team_id = :id returning id", id=team.id)
    await accepted(scene, team, 70)
    bells(scene, RunCalls)

    call = await team.call((await team.job())["job_id"])
    assert bells(scene, RunCalls) == [UUID(call)]


async def test_lines_that_wait_for_hours_do_not_close_the_door(scene: Scene):
    await accepted(scene, await scene.team(), 2)
    await Dispatcher(scene.rt).tick()
    await accepted(scene, await scene.team(), 2)
    async with scene.later(7200) as rt, rt.db.hot_statement() as tx:
        assert await waiting_calls.lacking_a_worker_s(tx) == 0


async def test_max_parallel_calls_counts_lines_and_live_calls_come_first(scene: Scene, dispatcher: Dispatcher):
    team = await team_with(scene, max_parallel_calls=3)
    lines = await accepted(scene, team, 5)
    await dispatcher.tick()
    assert bells(scene) == lines.ids[:3]
    assert await dispatcher.tick() == 0

    claimed = await scene.worker.claim(lines.ids[:3])
    call = UUID(await team.call((await team.job())["job_id"]))
    await scene.worker.claim([call])
    bells(scene, RunCalls)
    await scene.worker.run(claimed[0])
    assert bells(scene, RunCalls) == [call], "the place that is free is the call's"
    await dispatcher.tick()
    assert bells(scene) == []


async def test_requests_per_minute_pace_the_lines_of_that_team_alone(scene: Scene, dispatcher: Dispatcher):
    limited, free = await team_with(scene, rpm_limit=4), await scene.team()
    await accepted(scene, limited, 6)
    await accepted(scene, free, 6)

    assert await dispatcher.tick() == 4 + 6
    assert await of_teams(scene, bells(scene)) == {limited.id: 4, free.id: 6}
    assert await dispatcher.tick() == 0
    live = await limited.post("/jobs/create", {"team_id": limited.id, "job_type": "test"})
    assert live.status_code == 429, "lines and live requests have one limit"


async def test_a_keys_limit_holds_its_lines_and_no_other_keys(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    slow = await accepted(scene, team, 5, key_id=await key_of(scene, team, rpm_limit=2))
    fast = await accepted(scene, team, 5, key_id=await key_of(scene, team))

    await dispatcher.tick()
    assert sorted(bells(scene)) == sorted([*slow.ids[:2], *fast.ids])


async def test_tokens_per_minute_count_estimates_and_one_line_larger_than_the_limit_takes_it_all(
    scene: Scene, dispatcher: Dispatcher
):
    team, other = await team_with(scene, tpm_limit=250), await team_with(scene, tpm_limit=250)
    lines = await accepted(scene, team, 4, tokens=100)
    large = await accepted(scene, other, 2, tokens=1000)

    await dispatcher.tick()
    assert sorted(bells(scene)) == sorted([*lines.ids[:2], large.ids[0]])


async def test_without_redis_limited_lines_wait_and_others_go_on(scene: Scene):
    await accepted(scene, await team_with(scene, rpm_limit=100), 2)
    free = await accepted(scene, await scene.team(), 2)
    gone = redis_client("redis://127.0.0.1:1")
    await Dispatcher(replace(scene.rt, redis=gone)).tick()
    await gone.aclose()
    assert bells(scene) == free.ids


async def refuse_one(scene: Scene, dispatcher: Dispatcher, lines: Lines, **fields: object) -> UUID:
    """The first line runs into its provider's rate limit, and the others that were rung with it are answered."""
    scene.provider.steps = [refused("provider_rate_limit", http_status=429, **fields)]
    await dispatcher.tick()
    await scene.work(bells(scene)[:1])
    return lines.ids[0]


async def test_a_refused_line_waits_and_has_lost_no_try(scene: Scene, dispatcher: Dispatcher):
    lines = await accepted(scene, await scene.team(), 2)
    line = await refuse_one(scene, dispatcher, lines, retry_after_s=20)

    assert await state_of(scene, line) == ("pending", False, 0)
    row = await scene.row("select run_at - app_now() as wait, attempt from calls where id = :id", id=line)
    assert 15 < row.wait.total_seconds() <= 20
    assert row.attempt == 1
    assert line not in bells(scene), "no bell of its own: the dispatcher finds it when it is due"


async def test_a_provider_that_refuses_pauses_for_everybody_who_uses_it_and_for_nobody_else(
    scene: Scene, dispatcher: Dispatcher
):
    one, two, elsewhere = await at(scene, "openai"), await at(scene, "openai"), await at(scene, "anthropic")
    await refuse_one(scene, dispatcher, await accepted(scene, one, 1), retry_after_s=20)
    held = [await accepted(scene, team, 2) for team in (one, two)]
    free = await accepted(scene, elsewhere, 2)

    await dispatcher.tick()
    assert bells(scene) == free.ids
    async with scene.later(19) as rt:
        assert await Dispatcher(rt).tick() == 0
    async with scene.later(21) as rt:
        assert await Dispatcher(rt).tick() > 0
    assert set(bells(scene)) & {*held[0].ids, *held[1].ids}


async def test_after_the_pause_half_as_many_run_at_once_and_more_with_time(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, 30)
    await dispatcher.tick()
    claimed = await scene.worker.claim(bells(scene)[:8])
    scene.provider.steps = [refused("provider_rate_limit", retry_after_s=5) for _ in range(8)]
    for call in claimed:
        await scene.worker.run(call)
    await scene.rows("update calls set rung_at = null where job_id = :id returning id", id=lines.job_id)

    [row] = await scene.rows("select in_flight from provider_slowdowns")
    assert row.in_flight == 4, "half of the eight that ran: refusals of one burst are one refusal"
    async with scene.later(5.1) as rt:
        assert await Dispatcher(rt).tick() == 4
    async with scene.later(8.1) as rt:
        assert await Dispatcher(rt).tick() == 3
    async with scene.later(500) as rt:
        assert await Dispatcher(rt).tick() == LEAST_WINDOW - 4 - 3 - 2


async def test_at_a_slowed_provider_teams_have_their_turns_too(scene: Scene):
    heavy, light, other = await at(scene, "openai"), await at(scene, "openai"), await at(scene, "anthropic")
    await scene.rows("update teams set weight = 3 where id = :id returning id", id=heavy.id)
    for team in (heavy, light, other):
        await accepted(scene, team, 30)
    await scene.rows(
        """insert into provider_slowdowns (provider, refused_at, until, in_flight)
           values ('openai', app_now(), app_now(), 2) returning provider"""
    )
    dispatcher, given = Dispatcher(scene.rt), dict.fromkeys((heavy.id, light.id), 0)
    for _ in range(4):
        await dispatcher.tick()
        rung = bells(scene)
        for team, lines in (await of_teams(scene, rung)).items():
            if team in given:
                given[team] += lines
        await scene.rows(
            "update calls set state = 'cancelled', completed_at = app_now() where id = any(:ids) returning id", ids=rung
        )
    assert given == {heavy.id: 6, light.id: 2}


async def test_what_comes_behind_many_lines_for_a_slowed_provider_runs_meanwhile(scene: Scene, dispatcher: Dispatcher):
    first, second = sorted([await at(scene, "openai"), await at(scene, "openai")], key=lambda team: team.id)
    placed = await accepted(scene, first, 1)
    await accepted(scene, second, 2 * LEAST_WINDOW)
    free = await accepted(scene, second, 3, model="elsewhere")
    await scene.rows(
        """insert into provider_slowdowns (provider, refused_at, until, in_flight)
           values ('openai', app_now(), app_now(), 1) returning provider"""
    )
    await dispatcher.tick()
    assert sorted(bells(scene)) == sorted([*placed.ids, *free.ids])


async def test_a_live_call_that_is_refused_slows_lines_and_is_tried_again_as_ever(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    await accepted(scene, team, 2)
    scene.provider.steps = [refused("provider_rate_limit", retry_after_s=20)]
    call = UUID(await team.call((await team.job())["job_id"]))
    await scene.work([call])

    assert await state_of(scene, call) == ("pending", True, 1)
    assert await dispatcher.tick() == 0


async def test_another_failure_costs_a_line_a_try_and_it_waits_for_the_dispatcher(scene: Scene, dispatcher: Dispatcher):
    lines = await accepted(scene, await scene.team(), 1)
    scene.provider.steps = [refused()]
    await dispatcher.tick()
    await scene.work(bells(scene))
    assert await state_of(scene, lines.ids[0]) == ("pending", False, 1)

    await dispatcher.tick()
    assert bells(scene) == lines.ids
