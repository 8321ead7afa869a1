"""What batches hold and are charged: by the line, or by what their lines used, however they end."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared import charging
from shared.charging import Terms
from shared.jobs import Job
from tests.accepted_batches import row, running
from tests.money import budget, claim, close, held_of, in_order, paying, used
from tests.scene import Scene, agrees, refused

LINE = {"estimated_output_tokens": 1000, "estimate_nanousd": 136_000_000}
"""What a line of PER_TOKEN may come to: 1.36 credits at ten a dollar."""
BAD = refused("provider_bad_request", again="never")


async def test_16_a_batch_holds_a_credit_for_each_line_and_pays_for_those_that_succeeded(scene: Scene):
    team = await paying(scene)
    batch = await running(scene, team, 100)
    assert await team.credits() == (1000, 100, 900)
    scene.provider.steps = [BAD] * 10
    await scene.work(batch.lines[:50])
    assert await team.credits() == (1000, 100, 900), "to its end"
    await scene.work(batch.lines[50:])

    assert await team.credits() == (910, 0, 910)
    assert await team.deductions() == [-90]
    shown = await team.read(batch.job_id)
    assert (shown["credits_charged"], shown["counts"]["completed"], shown["counts"]["failed"]) == (90, 90, 10)
    await agrees(scene, team)
    await in_order(scene, team)


@pytest.mark.parametrize("mode", ["job_based", "consumption_usd", "consumption_tokens"])
async def test_a_batch_that_is_cancelled_pays_for_what_succeeded_until_then(scene: Scene, mode: str):
    team = await paying(scene, budget_mode=mode, tokens_per_credit=100)
    await budget(scene, team, max_nanousd=10**12)
    of_team = (await scene.row("select id from budgets where team_id = :id", id=team.id)).id
    batch = await running(scene, team, 4, budget_ids=[of_team], **LINE)
    for line in batch.names[:2]:
        await close(scene, used(scene, await claim(scene, line), 250))

    await team.post(f"/jobs/{batch.job_id}/cancel")

    paid = {"job_based": 2, "consumption_usd": 1, "consumption_tokens": 5}[mode]
    assert await team.credits() == (1000 - paid, 0, 1000 - paid)
    assert await team.deductions() == [-paid]
    spent = await scene.row("select spent_nanousd, held_nanousd from budgets where id = :id", id=of_team)
    assert (spent.spent_nanousd, spent.held_nanousd) == (2 * 34_000_000, 0)
    await in_order(scene, team)


async def test_lines_that_failed_are_free_also_where_failed_calls_are_charged(scene: Scene):
    team = await paying(scene, charge_failed_calls=True)
    batch = await running(scene, team, 3)
    scene.provider.steps = [BAD]
    await scene.work(batch.lines)
    assert await team.deductions() == [-2]
    await in_order(scene, team)


async def test_a_batch_gives_back_what_its_lines_did_not_use_a_tenth_of_its_hold_at_a_time(scene: Scene):
    team = await paying(scene, budget_mode="consumption_usd")
    batch = await running(scene, team, 30, **LINE)
    held = [await held_of(scene, batch.job_id)]
    for line in batch.names[:10]:
        await close(scene, used(scene, await claim(scene, line), 250))
        held.append(await held_of(scene, batch.job_id))

    assert held == [41, 41, 41, 41, 41, 36, 36, 36, 36, 32, 32]
    await in_order(scene, team)
    await team.post(f"/jobs/{batch.job_id}/cancel")
    assert await team.credits() == (996, 0, 996)
    assert (await row(scene, batch)).credits_charged == 4
    await in_order(scene, team)


async def test_the_end_of_lines_by_the_thousand_frees_the_budgets_of_each(scene: Scene):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=10**12)
    await budget(scene, team, max_nanousd=10**12, of_key=True)
    budgets = await scene.rows("select id from budgets where team_id = :id or key_id in "
                               "(select id from virtual_keys where team_id = :id)", id=team.id)  # fmt: skip
    both: list[UUID] = [found.id for found in budgets]
    batch = await running(scene, team, 3, budget_ids=both, **LINE)
    other = await team.call((await team.job())["job_id"], max_tokens=1000)
    await team.post(f"/jobs/{batch.job_id}/cancel")
    held = await scene.rows("select held_nanousd as n from budgets where id = any(:ids)", ids=both)
    assert [found.n for found in held] == [136_000_000] * 2, f"of {other} alone"
    await in_order(scene, team)


@pytest.mark.parametrize(
    ("held", "estimate_credits", "given_back"), [(100, 91, 0), (100, 90, 10), (3, 2, 1), (100, 100, 0), (5, 9, 0)]
)
def test_less_than_a_tenth_too_much_is_not_given_back(held: int, estimate_credits: int, given_back: int):
    job = Job(
        id=UUID(int=1), team_id="t", organization_id="o", job_type="batch", is_batch=True, credits_held=held,
        estimate_nanousd=estimate_credits * 10**8, created_at=datetime.now(UTC),
    )  # fmt: skip
    charging.agree(job, Terms(budget_mode="consumption_usd"))
    assert charging.excess(job) == given_back
    job.is_batch = False
    assert charging.excess(job) == max(0, held - estimate_credits), "a job's goes at once"
