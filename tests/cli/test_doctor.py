"""`waybill doctor` proves the books of a database that was worked on, and names whatever is off."""

import json
import os
import subprocess
import sys

import pytest

from shared import books
from shared.books import CHECKS
from tests.scene import HELLO, Scene, Team, refused

NAMES = [(area, check) for area, checks in CHECKS.items() for check in checks]

# For each check, what breaks it (and maybe others with it): in Postgres' words, after turning the guards off.
BREAKS = {
    "an account is the sum of its entries": "update credit_accounts set used = used + 1",
    "each entry begins where the one before it ended, the first at 0": """
        update credit_entries set "before" = "before" + 1, after = after + 1""",
    "what is held is the sum of holds": "update credit_accounts set held = held + 1",
    "a hold is that of a live job": "update holds set credits = credits + 1",
    "what a job holds is in its hold": "delete from holds",
    "each deduction is what its job was charged": "update credit_entries set amount = -7 where kind = 'deduction'",
    "no deduction or refund without its job": """
        update credit_entries set job_id = uuid7() where kind = 'deduction'""",
    "a job-based job is charged one credit when it completed and none of its calls failed, else none": """
        update jobs set credits_charged = 0 where budget_mode = 'job_based'""",
    "a consumption job is charged what its calls came to": """
        update jobs set credits_charged = 99 where budget_mode = 'consumption_usd'""",
    "a budget holds what its unfinished calls may cost": "update budgets set held_nanousd = held_nanousd + 1",
    "provider cost: attempts sum to the call": "update attempts set provider_cost_nanousd = 1",
    "client cost: the call has that of its result's attempt, else none": "update calls set client_cost_nanousd = 1",
    "costs, tokens, estimates and counts: calls sum to the job": "update jobs set total_tokens = total_tokens + 1",
    "attempts are numbered without gaps": "update attempts set number = number + 10",
    "an attempt of unknown end may have been billed": "update attempts set maybe_billed = not maybe_billed",
    "a call that runs has a lease": "update calls set worker = null where state = 'in_progress'",
    "a call of a final job is final": "update jobs set status = 'failed', completed_at = app_now(), credits_held = 0",
    "a call ends in exactly one event": "update events set type = 'call.other' where type = 'call.completed'",
    "a job ends in exactly one event": "update events set type = 'job.other' where type = 'job.completed'",
    "events of a job are numbered without gaps": "update events set sequence = sequence + 1",
    "an event has a delivery for each endpoint that wants it": "delete from deliveries",
    "usage of ended jobs is the sum of the jobs": "update usage_daily set jobs_completed = jobs_completed + 1",
    "usage of ended calls is the sum of the calls": "update usage_daily set provider_cost_nanousd = 1",
    "no lease expired long ago": """
        update calls set lease_expires_at = app_now() - interval '1 hour' where state = 'in_progress'""",
    "no call outlives its deadline": """
        update calls set deadline_at = app_now() - interval '1 hour' where state = 'in_progress'""",
    "no delivery is long overdue": "update deliveries set next_attempt_at = app_now() - interval '1 hour'",
}

GUARDS = (
    "set local session_replication_role = replica",
    "alter table jobs drop constraint ck_jobs_final_is_settled",
    "alter table jobs drop constraint ck_jobs_counts",
    "alter table credit_accounts drop constraint ck_credit_accounts_never_overspent",
    "alter table credit_entries drop constraint ck_credit_entries_adds_up",
    "drop index uq_events_job_id_sequence",
)
"""What Postgres itself would refuse; the transaction that drops them is rolled back."""


@pytest.fixture
def settings(settings, fresh_database_url):
    return settings.model_copy(update={"database_url": fresh_database_url})


@pytest.fixture
async def worked(scene: Scene) -> Scene:
    """Jobs of several endings, one of them still running, in teams of two modes."""
    by_job = await scene.team()
    hook = {"team_id": by_job.id, "webhook_url": "http://127.0.0.1:8099/hook"}
    assert (await by_job.post("/webhooks/register", hook)).status_code == 200
    by_dollar = await scene.team(budget_mode="consumption_usd", max_budget_usd=5)
    for team in (by_job, by_dollar):
        await _finished(scene, team)
        running = await team.job(calls=[{"messages": HELLO}])
        await scene.worker.claim([running["calls"][0]["call_id"]])
    return scene


async def _finished(scene: Scene, team: Team) -> None:
    job = await team.job(calls=[{"messages": HELLO}, {"messages": HELLO}])
    scene.provider.steps = [refused()]
    await scene.work_on(*(call["call_id"] for call in job["calls"]))
    await team.post(f"/jobs/{(await team.job(calls=[{'messages': HELLO}]))['job_id']}/cancel")


def doctor(scene: Scene, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "WAYBILL_DATABASE_URL": scene.rt.settings.database_url}
    command = [sys.executable, "-m", "cli", "doctor", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_the_books_of_a_used_database_are_sound(worked: Scene):
    found = doctor(worked)
    assert (found.returncode, found.stderr) == (0, "")
    assert "the books are sound" in found.stdout


def test_every_check_has_something_that_breaks_it():
    assert set(BREAKS) == {check for _, check in NAMES}


async def test_each_check_finds_what_breaks_it(worked: Scene):
    silent = []
    for area, check in NAMES:
        async with worked.rt.db.engine.connect() as tx:
            for guard in GUARDS:
                await tx.exec_driver_sql(guard)
            await tx.exec_driver_sql(BREAKS[check])
            found = await books.broken(tx, area, check)
            await tx.rollback()
        if found is None or not found.rows:
            silent.append(check)
    assert silent == []


async def test_what_is_off_is_shown_with_its_rows(worked: Scene):
    await worked.rows("update budgets set held_nanousd = held_nanousd + 1 returning id")
    found = doctor(worked)
    assert found.returncode == 1
    assert "BROKEN: a budget holds what its unfinished calls may cost: 1 row\n    budget_id=" in found.stdout
    findings = json.loads(doctor(worked, "--json").stdout)["findings"]
    assert [finding["area"] for finding in findings] == ["money"]


async def test_one_team_can_be_asked_for(worked: Scene):
    sound = await worked.team()
    await worked.rows("update credit_accounts set used = used + 1 where team_id <> :id returning 1", id=sound.id)
    assert doctor(worked, "--team", sound.id).returncode == 0
    assert doctor(worked).returncode == 1


def test_books_that_cannot_be_read_are_neither_sound_nor_broken():
    env = {**os.environ, "WAYBILL_DATABASE_URL": "postgresql://nobody:x@127.0.0.1:9/none"}
    command = [sys.executable, "-m", "cli", "doctor"]
    found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("waybill: the database cannot be read")
