"""Circuits of providers: where calls go while one is open, and how it is closed again."""

import asyncio
from uuid import UUID

import pytest

from shared import books, detours, provider_circuits
from shared.books import CHECKS
from shared.states import Outcome
from tests.api.admin import made, unique
from tests.scene import PRICES, Scene, Team, agrees, refused
from tests.workers.line_rows import accepted
from tests.workers.outages import (
    OPEN_S,
    OUTAGE,
    circuit,
    claimed,
    ends,
    fail,
    outage,
    submitted,
    worker,
)


@pytest.fixture
async def team(scene: Scene) -> Team:
    """With a model and its fallback."""
    return await scene.team(models=2)


async def test_after_five_failures_in_a_row_calls_go_to_the_fallback_without_asking(scene: Scene, team: Team):
    first, second = team.models
    await fail(scene, team, *[refused()] * (OUTAGE - 1))
    [before] = await submitted(team, 1)
    scene.provider.steps = [refused("provider_timeout", outcome=Outcome.UNKNOWN)]
    await scene.work([before])
    [after] = await submitted(team, 1)
    await scene.work([after, before])

    assert await ends(scene, before) == [(first, "unknown"), (second, "succeeded")]
    assert await ends(scene, after) == [(second, "succeeded")]
    sql = "select candidate, candidate_attempts, attempt from calls where id = :id"
    shown = [tuple(await scene.row(sql, id=UUID(call))) for call in (before, after)]
    assert shown == [(1, 1, 2), (1, 1, 1)], "each candidate's tries are its own"
    assert (await circuit(scene, first)).open_s == OPEN_S


async def test_the_last_candidate_is_asked_although_its_circuit_is_open(scene: Scene, team: Team):
    first, second = team.models
    await outage(scene, team)
    calls = await submitted(team, OUTAGE)
    scene.provider.steps = [refused()] * OUTAGE
    await scene.work(calls)
    assert (await circuit(scene, second)).open_s == OPEN_S
    scene.provider.steps = []
    [call] = await submitted(team, 1)
    await scene.work([call])

    assert await ends(scene, call) == [(second, "succeeded")]
    assert await circuit(scene, second) is None, "it is well"
    assert (await circuit(scene, first)).open_s == OPEN_S


async def test_with_a_single_candidate_nothing_changes(scene: Scene):
    team = await scene.team()
    calls = await outage(scene, team)
    assert (await circuit(scene, team.models[0])).open_s == OPEN_S
    await scene.work(calls)
    assert [await ends(scene, call) for call in calls] == [
        [(team.models[0], "failed"), (team.models[0], "succeeded")]
    ] * 5


async def test_it_goes_on_past_every_open_circuit(scene: Scene):
    team = await scene.team(models=3)
    first, second, third = team.models
    await outage(scene, team)
    scene.provider.steps = [refused()] * OUTAGE
    await scene.work(await submitted(team, OUTAGE))
    scene.provider.steps = []
    [call] = await submitted(team, 1)
    await scene.work([call])
    assert await ends(scene, call) == [(third, "succeeded")]
    assert (await circuit(scene, first)).open_s == (await circuit(scene, second)).open_s == OPEN_S


async def test_two_units_share_it(scene: Scene, team: Team):
    await outage(scene, team)
    other = worker(scene)
    [call] = await claimed(other, await submitted(team, 1))
    assert call.alias == team.models[1]


async def test_half_open_it_lets_one_call_through_whoever_claims(scene: Scene, team: Team):
    first, second = team.models
    await outage(scene, team)
    calls = await submitted(team, 6)
    async with scene.later(OPEN_S + 1) as rt:
        units = [worker(scene, rt) for _ in range(2)]
        found = await asyncio.gather(claimed(units[0], calls[:3]), claimed(units[1], calls[3:]))
    won = [call for some in found for call in some]
    assert sorted(call.alias for call in won) == sorted([first, *[second] * 5])
    assert [call.alias for call in won if call.probed_at is not None] == [first]


async def test_an_answered_probe_closes_it(scene: Scene, team: Team):
    first, second = team.models
    await outage(scene, team)
    async with scene.later(OPEN_S + 1) as rt:
        scene.worker = worker(scene, rt)
        calls = await submitted(team, 3)
        await scene.work(calls)
        assert await circuit(scene, first) is None
        await scene.work(more := await submitted(team, 2))
    asked = [alias for call in calls for alias, _ in await ends(scene, call)]
    assert sorted(asked) == sorted([first, second, second])
    assert [await ends(scene, call) for call in more] == [[(first, "succeeded")]] * 2


async def test_each_failed_probe_keeps_it_open_for_longer_up_to_two_minutes(scene: Scene, team: Team):
    first, second = team.models
    await outage(scene, team)
    at_s, seen = 0.0, []
    for _ in range(5):
        at_s += float((await circuit(scene, first)).open_s) + 1
        async with scene.later(at_s) as rt:
            scene.worker = worker(scene, rt)
            [probe] = await fail(scene, team, refused(http_status=500))
            await scene.work([probe])
        seen.append((await circuit(scene, first)).open_s)
        assert await ends(scene, probe) == [(first, "failed"), (second, "succeeded")]
    assert seen == [20, 40, 80, 120, 120]


async def test_a_probe_whose_worker_died_is_followed_by_another(scene: Scene, team: Team):
    first, second = team.models
    await outage(scene, team)
    calls = await submitted(team, 3)
    at_s = OPEN_S + 1
    for wait_s, asked in ((0, first), (detours.PROBE_S - 2, second), (detours.PROBE_S, first)):
        async with scene.later(at_s + wait_s) as rt:
            [call] = await claimed(worker(scene, rt), [calls.pop()])
        assert call.alias == asked


async def test_a_probe_that_tells_nothing_makes_room_for_the_next(scene: Scene, team: Team):
    first, _ = team.models
    await outage(scene, team)
    async with scene.later(OPEN_S + 1) as rt:
        scene.worker = worker(scene, rt)
        [refused_] = await fail(scene, team, refused("provider_bad_request", http_status=400, again="never"))
        [probe, other] = await submitted(team, 2)
        scene.provider.held.clear()
        running = asyncio.create_task(scene.work([probe]))
        await scene.provider.until_asked(OUTAGE + 2)
        scene.worker.cancel([UUID(probe)])
        await running
        scene.provider.held.set()
        await scene.work([other])
    assert await ends(scene, refused_) == [(first, "failed")]
    assert await ends(scene, probe) == [(first, "abandoned")]
    assert await ends(scene, other) == [(first, "succeeded")]
    assert await circuit(scene, first) is None


async def test_lines_of_batches_go_round_it_and_make_it_known(scene: Scene, team: Team):
    first, second = team.models
    lines = (await accepted(scene, team, OUTAGE + 3)).ids
    sql = "update calls set candidates = :both where id = any(:ids) returning id"
    await scene.rows(sql, both=[first, second], ids=lines)
    scene.provider.steps = [refused("provider_rate_limit", http_status=429)] * OUTAGE
    await scene.work(lines[:OUTAGE])
    await scene.work(lines[OUTAGE:])
    assert [await ends(scene, str(line)) for line in lines[OUTAGE:]] == [[(second, "succeeded")]] * 3


async def test_calls_of_a_limited_team_go_round_it(scene: Scene):
    team = await scene.team(models=2, max_parallel_calls=OUTAGE)
    await outage(scene, team)
    [call] = await submitted(team, 1)
    await scene.work([call])
    assert await ends(scene, call) == [(team.models[1], "succeeded")]


async def test_a_call_that_skips_candidates_keeps_its_tries_for_the_others(scene: Scene):
    team = await scene.team(models=3)
    _, second, third = team.models
    await outage(scene, team)
    [call] = await submitted(team, 1)
    scene.provider.steps = [refused(http_status=500)] * 4
    await scene.work_on(call)
    assert await ends(scene, call) == [(second, "failed")] * 3 + [(third, "failed"), (third, "succeeded")]


async def test_two_aliases_with_keys_of_their_own_do_not_share_one(scene: Scene, team: Team):
    assert len({row.litellm_model for row in await scene.rows(
        "select litellm_model from model_aliases where alias = any(:both)", both=list(team.models))}) == 1  # fmt: skip
    await outage(scene, team)
    other = await scene.team(models=2)
    [call] = await submitted(other, 1)
    await scene.work([call])
    assert await ends(scene, call) == [(other.models[0], "succeeded")]


SERVER = "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    ("key", "base", "credential_base"),
    [
        ("sk-own", None, None),
        ("sk-own", SERVER, None),
        (None, None, None),
        (None, None, SERVER),
        (None, SERVER, SERVER),
        (None, SERVER, "none at all"),
        (None, None, "none at all"),
    ],
)
async def test_it_is_found_again_whosever_key_is_used(
    scene: Scene, key: str | None, base: str | None, credential_base: str | None
):
    """What a worker tells of a call and what a claim looks for are the same target."""
    asked = {"litellm_model": f"openai/{unique('gpt')}", "api_base": base, "api_key": key}
    second = (await scene.api.alias(api_key="sk-provider", **PRICES))["alias"]
    first = (await scene.api.alias(**asked, **PRICES, fallbacks=[second]))["alias"]
    group = (await scene.api.group(model_aliases=[first, second]))["group_name"]
    row = await scene.api.team(access_groups=[group], credits_allocated=100)
    if credential_base != "none at all":
        where = {"organization_id": row["organization_id"], "provider": "openai", "api_base": credential_base}
        body = {**where, "credential_name": "c", "api_key": "sk-of-the-organization"}
        made(await scene.api.post("/provider-credentials/create", body))
    team = Team(scene=scene, id=row["team_id"], key=row["virtual_key"], models=(first, second))
    await outage(scene, team)
    [call] = await submitted(team, 1)
    await scene.work([call])
    assert await ends(scene, call) == [(second, "succeeded")]
    async with scene.rt.db.hot_statement() as tx:
        assert {first, second} & await provider_circuits.open_aliases(tx) == {first}


async def test_the_books_hold_while_calls_go_round_it(scene: Scene, team: Team):
    calls = await outage(scene, team)
    for call in [*calls, *await submitted(team, 3)]:
        await scene.work_on(call)
    async with scene.rt.db.transaction() as tx:
        broken = [await books.broken(tx, area, check, teams=[team.id]) for area in CHECKS for check in CHECKS[area]]
    assert [finding for finding in broken if finding] == []
    await agrees(scene, team)
