"""Teams that pay by consumption, limits of credits, and what is told and counted of all that."""

import asyncio
from collections import Counter
from decimal import Decimal
from uuid import UUID

import pytest

from shared import intake
from shared.charging import MOST_NANOUSD, Terms
from shared.intake import Accepted, Submission
from tests.money import (
    PER_TOKEN,
    answered,
    budget,
    claim,
    close,
    held_of,
    in_order,
    new_call,
    paying,
    pays,
    refusal,
    submission,
    told,
    used,
)
from tests.scene import HELLO, Scene, Team, refused
from workers import reports

FREE = {"pricing_input": 0, "pricing_output": 0}
NO_CREDITS = (403, "Insufficient credits")


async def charged(team: Team, job_id: str, status: str = "completed") -> int:
    done = await team.complete(job_id, status)
    assert done.status_code == 200, done.text
    found: int = done.json()["costs"]["credits_charged"]
    return found


async def test_10_a_job_holds_what_its_calls_may_cost_and_is_charged_what_they_cost_rounded_once(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd")
    job_id = (await team.job())["job_id"]
    held = []
    claimed = []
    for _ in range(3):
        claimed.append(await claim(scene, await team.call(job_id, max_tokens=1000)))
        held.append(await held_of(scene, job_id))
    for call in claimed:
        await close(scene, used(scene, call, 250))
        held.append(await held_of(scene, job_id))

    assert held == [2, 3, 5, 4, 3, 2]
    assert await team.credits() == (1000, 2, 998)
    assert await charged(team, job_id) == 2
    assert await team.credits() == (998, 0, 998)
    assert await team.deductions() == [-2]
    await in_order(scene, team)


async def test_12_tokens_become_credits(scene: Scene):
    team = await paying(scene, budget_mode="consumption_tokens", tokens_per_credit=10_000)
    for tokens, charge in ((8_500, 1), (45_000, 5)):
        job_id = (await team.job())["job_id"]
        await answered(scene, team, job_id, tokens, max_tokens=50_000)
        assert await charged(team, job_id) == charge
    await in_order(scene, team)


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_13_what_a_job_used_is_charged_however_it_ends(scene: Scene, end: str):
    team = await paying(scene, budget_mode="consumption_usd")
    job_id = (await team.job())["job_id"]
    await answered(scene, team, job_id, 250)
    await team.call(job_id)

    ended = await (team.post(f"/jobs/{job_id}/cancel") if end == "cancelled" else team.complete(job_id, "failed"))

    assert ended.status_code == 200
    assert (await team.read(job_id))["credits_charged"] == 1
    entry = await scene.row("select * from credit_entries where job_id = :id", id=UUID(job_id))
    assert (entry.amount, entry.reason) == (-1, f"Job test {end}")
    await in_order(scene, team)


async def test_14_a_call_that_may_cost_more_than_is_free_is_refused_and_nothing_is_held(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd", credits=5)
    job_id = (await team.job())["job_id"]

    assert refusal(await team.submit(job_id, max_tokens=4000)) == NO_CREDITS
    assert await team.credits() == (5, 0, 5)
    assert (await team.read(job_id))["status"] == "pending"
    assert (await team.submit(job_id, max_tokens=3000)).status_code == 202
    await in_order(scene, team)


async def test_calls_that_fail_or_are_cancelled_free_what_was_held_for_them(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd")
    job_id = (await team.job())["job_id"]
    calls = [await team.call(job_id, max_tokens=1000) for _ in range(3)]
    assert await held_of(scene, job_id) == 5

    await team.post(f"/jobs/{job_id}/calls/{calls[0]}/cancel")
    assert await held_of(scene, job_id) == 3
    scene.provider.steps = [refused("provider_bad_request", again="never")]
    await scene.work_on(calls[1])
    assert await held_of(scene, job_id) == 2
    await scene.work_on(calls[2])

    await team.complete(job_id)
    assert await team.credits() == (999, 0, 999)
    await in_order(scene, team)


async def test_a_call_that_is_tried_again_keeps_its_hold(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd")
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id, max_tokens=1000)
    scene.provider.steps = [refused()]
    await scene.work([call_id])

    assert (await team.read(job_id, call_id))["status"] == "pending"
    assert await held_of(scene, job_id) == 2
    await in_order(scene, team)


@pytest.mark.parametrize(
    ("limit_mode", "credit_limit", "charge", "lost"),
    [("hard", None, 4, 3), ("hard", 3, 3, 4), ("soft", None, 7, 0), ("unlimited", None, 7, 0)],
)
async def test_a_call_that_used_more_than_was_held_takes_what_is_free_and_the_rest_is_our_loss(
    scene: Scene, limit_mode: str, credit_limit: int | None, charge: int, lost: int
):
    team = await paying(
        scene, budget_mode="consumption_usd", credits=4, limit_mode=limit_mode, credit_limit=credit_limit
    )
    job_id = (await team.job())["job_id"]
    await answered(scene, team, job_id, 5000, max_tokens=1000)
    assert await held_of(scene, job_id) == 2

    assert await charged(team, job_id) == charge
    row = await scene.row("select * from jobs where id = :id", id=UUID(job_id))
    assert (row.credits_charged, row.credits_lost, row.credits_remaining) == (charge, lost, 4 - charge)
    assert await team.credits() == (4 - charge, 0, 4 - charge)
    await in_order(scene, team)


async def test_jobs_that_overrun_together_share_what_is_free(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd", credits=5)
    jobs = [(await team.job(auto_complete=True, calls=[{"messages": HELLO, "max_tokens": 500}])) for _ in range(3)]
    claimed = [await claim(scene, job["calls"][0]["call_id"]) for job in jobs]
    await close(scene, *(used(scene, call, 2000) for call in claimed))

    charges = [(await team.read(job["job_id"]))["credits_charged"] for job in jobs]
    assert sorted(charges) == [1, 1, 3]
    assert await team.credits() == (0, 0, 0)
    await in_order(scene, team)


@pytest.mark.parametrize(("limit_mode", "taken"), [("hard", 3), ("soft", 5), ("unlimited", 8)])
async def test_limits_of_credits(scene: Scene, limit_mode: str, taken: int):
    team = await paying(scene, credits=3, limit_mode=limit_mode, credit_limit=5)
    jobs = [(await team.job())["job_id"] for _ in range(8)]
    answers = await asyncio.gather(*(team.submit(job_id) for job_id in jobs))

    assert Counter(a.status_code for a in answers) == Counter({202: taken, 403: 8 - taken})
    assert await team.credits() == (3, taken, 3 - taken)
    await in_order(scene, team)


async def test_a_model_that_costs_nothing_needs_no_credits_and_no_budget(scene: Scene):
    team = await pays(scene, await scene.team(credits=0, alias=FREE), budget_mode="consumption_usd")
    await budget(scene, team, max_nanousd=0)
    job_id = (await team.job())["job_id"]
    await scene.work_on(await team.call(job_id))

    assert await held_of(scene, job_id) == 0
    assert await charged(team, job_id) == 0
    await in_order(scene, team)


async def test_a_job_keeps_the_terms_of_its_first_call(scene: Scene):
    team = await paying(scene)
    job_id = (await team.job())["job_id"]
    await answered(scene, team, job_id)
    terms = Terms(budget_mode="consumption_usd", credits_per_dollar=Decimal(1000))
    call = new_call(team, UUID(job_id), estimate_nanousd=10**9)
    [accepted] = await intake.accept(
        scene.rt, [Submission(job_id=UUID(job_id), team_id=team.id, calls=[call], terms=terms)]
    )

    assert isinstance(accepted, Accepted)
    assert (await held_of(scene, job_id), accepted.job.budget_mode) == (1, "job_based")
    await scene.work_on(str(call.id))
    assert await charged(team, job_id) == 1
    await in_order(scene, team)


async def test_a_call_is_estimated_at_its_dearest_candidate_with_markup_and_no_more_than_a_column_holds(scene: Scene):
    team = await scene.team(models=2, cost_markup_percentage=50)
    await scene.rows(
        "update model_aliases set input_nanousd_per_mtok = 0, output_nanousd_per_mtok = :price where alias = :alias "
        "returning 1",
        price=80 * 10**9,
        alias=team.models[1],
    )
    job_id = (await team.job())["job_id"]
    call = UUID(await team.call(job_id, max_tokens=1000))
    huge = UUID(await team.call(job_id, max_tokens=10**12))

    rows = await scene.rows("select id, estimate_nanousd from calls where job_id = :id", id=UUID(job_id))
    found = {row.id: row.estimate_nanousd for row in rows}
    assert found[call] == 80_000 * 1000 * 3 // 2
    assert found[call] < found[huge] == MOST_NANOUSD
    shown = await scene.row("select estimate_nanousd from jobs where id = :id", id=UUID(job_id))
    assert shown.estimate_nanousd == sum(found.values())


async def test_low_credits_are_told_once_for_each_threshold_until_credits_are_added(scene: Scene):
    team = await paying(scene, credits=10)
    jobs = [(await team.job())["job_id"] for _ in range(10)]
    for job_id in jobs[:7]:
        await team.call(job_id)
    assert await told(scene, team) == []
    for job_id in jobs[7:]:
        await team.call(job_id)
    assert await told(scene, team) == [80, 90, 100]

    await team.post(f"/jobs/{jobs[0]}/cancel")
    again = (await team.job())["job_id"]
    await team.call(again)
    assert await told(scene, team) == [80, 90, 100]
    event = await scene.row(
        "select * from events where team_id = :id and type = 'credits.low' order by seq limit 1", id=team.id
    )
    assert (event.job_id, event.sequence) == (None, None)
    await in_order(scene, team)


async def test_the_event_of_low_credits_says_how_it_stands_and_reaches_endpoints(scene: Scene):
    team = await paying(scene, credits=10)
    hook = {"team_id": team.id, "webhook_url": "http://127.0.0.1:9999/hook", "events": ["credits.*"]}
    assert (await team.post("/webhooks/register", hook)).status_code == 200
    done = (await team.job())["job_id"]
    await scene.work_on(await team.call(done))
    await team.complete(done)
    await intake.accept(scene.rt, [submission(team) for _ in range(7)])

    [row] = await scene.rows(
        "select e.body::json -> 'data' as data from events e join deliveries d on d.event_id = e.id "
        "where e.team_id = :id and e.type = 'credits.low'",
        id=team.id,
    )
    assert row.data == {
        "id": team.id, "threshold_percent": 80, "credits_allocated": 10, "credits_used": 1, "credits_held": 7,
        "credits_available": 2, "percentage_used": 10.0,
    }  # fmt: skip


async def test_an_overrun_is_told_as_well(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd", credits=4, limit_mode="soft")
    job_id = (await team.job())["job_id"]
    await answered(scene, team, job_id, 5000, max_tokens=1000)
    assert await told(scene, team) == []

    await team.complete(job_id)

    assert await told(scene, team) == [80, 90, 100, 120]


async def test_usage_is_counted_on_the_line_of_model_provider_and_key(scene: Scene):
    team = await scene.team(models=2)
    job_id = (await team.job())["job_id"]
    scene.provider.steps = [refused("provider_bad_request", again="next", outcome="unknown")]
    await scene.work_on(await team.call(job_id))
    cancelled = await team.call(job_id)
    await team.post(f"/jobs/{job_id}/calls/{cancelled}/cancel")
    await team.complete(job_id)

    lines = await scene.rows("select * from usage_daily where team_id = :id order by model, provider", id=team.id)
    key = await scene.row("select id from virtual_keys where team_id = :id", id=team.id)
    found = {(line.model, line.provider): line for line in lines}
    assert set(found) == {("", ""), (team.models[0], ""), (team.models[0], "openai")}
    assert (found["", ""].jobs_completed, found["", ""].credits_charged, found["", ""].key_id.int) == (1, 1, 0)
    assert found[team.models[0], ""].calls_cancelled == 1
    served = found[team.models[0], "openai"]
    assert (served.key_id, served.calls_completed, served.prompt_tokens) == (key.id, 1, 200)
    attempts = await scene.row(
        "select sum(a.provider_cost_nanousd) as cost from attempts a join calls c on c.id = a.call_id "
        "where c.team_id = :id",
        id=team.id,
    )
    assert served.provider_cost_nanousd == attempts.cost > served.client_cost_nanousd > 0
    await in_order(scene, team)


async def test_usage_of_a_late_report_is_added_to_the_line_of_its_own_provider(scene: Scene):
    team = await paying(scene)
    job_id = (await team.job())["job_id"]
    late = await claim(scene, await team.call(job_id))
    await team.post(f"/jobs/{job_id}/cancel")
    await close(scene, used(scene, late, 250))

    line = await scene.row("select * from usage_daily where team_id = :id and provider = 'openai'", id=team.id)
    assert (line.calls_cancelled, line.provider_cost_nanousd, line.client_cost_nanousd) == (1, 34_000_000, 0)
    await in_order(scene, team)


async def test_two_attempts_of_one_call_reported_late_together_are_both_booked(scene: Scene):
    team = await paying(scene)
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    first = await claim(scene, call_id)
    await close(scene, reports.handed_back(first, scene.rt.prices))
    second = await claim(scene, call_id)
    await team.post(f"/jobs/{job_id}/cancel")
    await close(scene, used(scene, first, 250), used(scene, second, 500))

    row = await scene.row("select * from calls where id = :id", id=UUID(call_id))
    assert row.provider_cost_nanousd == 102_000_000
    await in_order(scene, team)


def test_the_price_of_these_tests():
    assert PER_TOKEN["pricing_output"] * 250 == 34_000
