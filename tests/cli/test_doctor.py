"""`waybill doctor` proves the books of a database that was worked on, and names whatever is off."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from psycopg.conninfo import conninfo_to_dict

from cli.doctor import main
from shared import books
from shared.books import CHECKS, Finding
from shared.revision import HEAD
from shared.settings import Settings
from tests import accepted_batches, ended_lines
from tests.scene import HELLO, Scene, Team, refused
from workers import batch_endings

HOOK = "http://127.0.0.1:8099/hook"
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
    "a call ends in exactly one event, a line of a batch in one or none": """
        update events set type = 'call.other' where type = 'call.completed'""",
    "a job ends in exactly one event": "update events set type = 'job.other' where type = 'job.completed'",
    "events of a job are numbered without gaps": "update events set sequence = sequence + 1",
    "no progress is told after the end of its job": """
        update events set type = 'job.progress', sequence = sequence + 99 where type = 'call.completed'""",
    "an event has a delivery for each endpoint that wants it": """
        with long as (update webhook_endpoints set active_since = active_since - interval '1 minute')
        delete from deliveries""",
    "an event has a delivery for each callback that wants it": "delete from deliveries where callback is not null",
    "a delivery that waits has its event, or is an example with its own body": "delete from events",
    "a delivery is delivered by an attempt that got a 2xx": "update deliveries set state = 'delivered'",
    "a delivery that was tried belongs to a queue": "update deliveries set attempt = 1",
    "a delivery of an endpoint is its team's": "update webhook_endpoints set team_id = 'another'",
    "a job-based batch holds a credit for each line while it runs": "update jobs set credits_held = 1 where is_batch",
    "a job-based batch is charged one credit for each line that completed": """
        update jobs set credits_charged = 1 where is_batch and status = 'completed'""",
    "tokens by class and expired lines: lines sum to the batch": "update jobs set cached_tokens = 7 where is_batch",
    "lines that ended are numbered without gaps": "update calls set ended_number = ended_number + 1",
    "only lines that ended have a number": "update calls set ended_number = 9 where state = 'in_progress'",
    "a batch and its calls are of one kind": "update jobs set is_batch = not is_batch",
    "a batch has its job, and a job that is one its batch": "update batches set team_id = 'another'",
    "a batch whose job runs is checked, runs or is cancelled; one whose job ended is on its way to its end": """
        update batches set status = 'in_progress'""",
    "a batch ends as its job did": "update batches set status = 'expired' where status = 'completed'",
    "a batch that ran is final with its output file": "update batches set lines = 99",
    "a batch shows only whole files": "update files set status = 'uploading'",
    "a whole file has the bytes of its chunks": "update files set bytes = bytes + 1",
    "a batch ends in exactly one event": "update events set type = 'batch.other' where type = 'batch.completed'",
    "usage of ended jobs is the sum of the jobs": "update usage_daily set jobs_completed = jobs_completed + 1",
    "usage of ended calls is the sum of the calls": "update usage_daily set provider_cost_nanousd = 1",
    "no lease expired long ago": """
        update calls set lease_expires_at = app_now() - interval '1 hour' where state = 'in_progress'""",
    "no call outlives its deadline": """
        update calls set deadline_at = app_now() - interval '1 hour' where state = 'in_progress'""",
    "no batch waits for somebody to check or finish it": """
        update batches set status = 'finalizing', finalizing_at = app_now() - interval '1 hour',
               lease_expires_at = null""",
    "no queue of deliveries stands still": "update deliveries set next_attempt_at = app_now() - interval '1 hour'",
    "nothing waits for an endpoint that is disabled": """
        update webhook_endpoints set status = 'disabled', deleted_at = app_now() - interval '1 hour'""",
}

JOBS = "costs, tokens, estimates and counts: calls sum to the job"
SIDES = {
    JOBS: (
        "jobs",
        {
            "provider_cost_nanousd": ("provider_cost_nanousd", "calls_provider_cost_nanousd"),
            "client_cost_nanousd": ("client_cost_nanousd", "calls_client_cost_nanousd"),
            "total_tokens": ("total_tokens", "calls_total_tokens"),
            "estimate_nanousd": ("estimate_nanousd", "calls_estimate_nanousd"),
            "calls_total": ("calls_total", "calls_counted"),
            "calls_completed": ("calls_completed", "calls_counted_completed"),
            "calls_failed": ("calls_failed", "calls_counted_failed"),
            "calls_cancelled": ("calls_cancelled", "calls_counted_cancelled"),
        },
    ),
    "usage of ended jobs is the sum of the jobs": (
        "usage_daily",
        {
            "jobs_completed": ("completed", "completed_of_jobs"),
            "jobs_failed": ("failed", "failed_of_jobs"),
            "jobs_cancelled": ("cancelled", "cancelled_of_jobs"),
            "credits_charged": ("credits", "credits_of_jobs"),
        },
    ),
    "usage of ended calls is the sum of the calls": (
        "usage_daily",
        {
            "calls_completed": ("ended", "ended_of_calls"),
            "client_cost_nanousd": ("client_cost_nanousd", "client_cost_of_calls_nanousd"),
            "provider_cost_nanousd": ("provider_cost_nanousd", "provider_cost_of_calls_nanousd"),
            "prompt_tokens": ("tokens", "tokens_of_calls"),
        },
    ),
}
"""For each check of several sums: a table, and for each of its columns the two sides that differ when it is off."""

GUARDS = (
    "set local session_replication_role = replica",
    "alter table jobs drop constraint ck_jobs_final_is_settled",
    "alter table jobs drop constraint ck_jobs_counts",
    "alter table credit_accounts drop constraint ck_credit_accounts_never_overspent",
    "alter table credit_entries drop constraint ck_credit_entries_adds_up",
    "drop index uq_events_job_id_sequence",
    "drop index ix_calls_job_ended",
)
"""What Postgres itself would refuse; the transaction that drops them is rolled back."""


@pytest.fixture
def settings(settings, fresh_database_url):
    return settings.model_copy(update={"database_url": fresh_database_url})


@pytest.fixture
async def worked(scene: Scene) -> Scene:
    """Jobs of several endings, one of them still running, in teams of two modes."""
    by_job = await scene.team()
    hook = {"team_id": by_job.id, "webhook_url": HOOK, "events": ["job.*"]}
    assert (await by_job.post("/webhooks/register", hook)).status_code == 200
    by_dollar = await scene.team(budget_mode="consumption_usd", max_budget_usd=5)
    for team in (by_job, by_dollar):
        await _finished(scene, team)
        running = await team.job(calls=[{"messages": HELLO}])
        await scene.worker.claim([running["calls"][0]["call_id"]])
        await _batches(scene, team)
    return scene


async def _batches(scene: Scene, team: Team) -> None:
    """One that ended with its files, and one that runs."""
    ended, _ = [await accepted_batches.running(scene, team, 2) for _ in range(2)]
    await scene.work(ended.lines)
    await batch_endings.end(scene.rt, await ended_lines.leased(scene, ended.id), "test-worker")


async def _finished(scene: Scene, team: Team) -> None:
    calls = [{"messages": HELLO}, {"messages": HELLO, "callback_url": HOOK}]
    job = await team.job(calls=calls, callback_url=HOOK)
    scene.provider.steps = [refused()]
    await scene.work_on(*(call["call_id"] for call in job["calls"]))
    await team.post(f"/jobs/{(await team.job(calls=[{'messages': HELLO}]))['job_id']}/cancel")


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


Doctor = Callable[..., Awaitable[Told]]


@pytest.fixture
def doctor(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The command on this test's database, in a thread of its own: it brings its event loop."""

    async def ask(*arguments: str, url: str = settings.database_url) -> Told:
        capsys.readouterr()
        code = await asyncio.to_thread(main, arguments, {"WAYBILL_DATABASE_URL": url})
        return Told(code, *capsys.readouterr())

    return ask


async def test_the_books_of_a_used_database_are_sound(worked: Scene):
    env = {**os.environ, "WAYBILL_DATABASE_URL": worked.rt.settings.database_url}
    command = [sys.executable, "-m", "cli", "doctor"]
    found = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "the books are sound" in found.stdout


def test_every_check_has_something_that_breaks_it():
    assert set(BREAKS) == {check for _, check in NAMES}


async def found_after(scene: Scene, area: str, check: str, breaking: str) -> Finding | None:
    """What a check finds when the books are broken so; they are whole again after."""
    async with scene.rt.db.engine.connect() as tx:
        for statement in (*GUARDS, breaking):
            await tx.exec_driver_sql(statement)
        found = await books.broken(tx, area, check)
        await tx.rollback()
    return found


async def test_each_check_finds_what_breaks_it(worked: Scene):
    found = {check: await found_after(worked, area, check, BREAKS[check]) for area, check in NAMES}
    assert [check for check, finding in found.items() if finding is None] == []
    # A row names what it is of, and at least what is there and what ought to be.
    assert [check for check, finding in found.items() if finding and len(finding.rows[0]) < 3] == []


async def test_what_retention_deleted_is_not_missed(worked: Scene):
    later = "select set_config('app.now', (app_now() + interval '40 days')::text, true)"
    async with worked.rt.db.engine.connect() as tx:
        for statement in (later, "delete from events", "delete from deliveries"):
            await tx.exec_driver_sql(statement)
        found = [await books.broken(tx, "outbox", check) for check in CHECKS["outbox"]]
        await tx.rollback()
    assert [finding.check for finding in found if finding] == []


async def test_both_sides_that_differ_are_shown(worked: Scene):
    for area, check in [(area, check) for area, check in NAMES if check in SIDES]:
        await _shows_both_sides(worked, area, check)


async def _shows_both_sides(scene: Scene, area: str, check: str) -> None:
    table, sides = SIDES[check]
    for column, (here, there) in sides.items():
        found = await found_after(scene, area, check, f"update {table} set {column} = {column} + 1")
        assert found is not None, column
        for row in found.rows:
            differing = {pair for pair in sides.values() if (row[pair[0]] or 0) != (row[pair[1]] or 0)}
            assert differing == {(here, there)}, column
            assert row[here] > (row[there] or 0)


async def test_the_database_that_was_read_is_named_without_who_reads_it(worked: Scene, doctor: Doctor):
    parts = conninfo_to_dict(worked.rt.settings.database_url)
    where = {"host": parts["host"], "port": int(parts["port"]), "name": parts["dbname"], "revision": HEAD}
    text, shown = await doctor(), json.loads((await doctor("--json")).out)
    assert shown["database"] == where
    assert shown["read"] == {"teams": 2, "jobs": 10, "calls": 16, "entries": await entries(worked)}
    counted = ", ".join(f"{count} {name}" for name, count in shown["read"].items())
    named = f"database {where['name']} at {where['host']} port {where['port']}, revision {HEAD}"
    assert text.out.splitlines()[0] == f"{named}: {counted}"


async def entries(scene: Scene) -> int:
    return int((await scene.row("select count(*) as n from credit_entries")).n)


async def test_an_empty_database_is_seen_to_be_empty(doctor: Doctor):
    shown = json.loads((await doctor("--json")).out)
    assert shown["read"] == {"teams": 0, "jobs": 0, "calls": 0, "entries": 0}


async def test_what_is_off_is_shown_with_its_rows(worked: Scene, doctor: Doctor):
    await worked.rows("update budgets set held_nanousd = held_nanousd + 1 returning id")
    found = await doctor()
    assert found.code == 1
    assert "BROKEN: a budget holds what its unfinished calls may cost: 1 row\n    budget_id=" in found.out
    [finding] = json.loads((await doctor("--json")).out)["findings"]
    assert finding["area"] == "money"
    assert finding["rows"][0]["held_nanousd"] == finding["rows"][0]["calls_estimate_nanousd"] + 1


async def test_one_team_can_be_asked_for(worked: Scene, doctor: Doctor):
    sound = await worked.team()
    await worked.rows("update credit_accounts set used = used + 1 where team_id <> :id returning 1", id=sound.id)
    one = await doctor("--team", sound.id, "--json")
    assert (one.code, json.loads(one.out)["read"]["teams"]) == (0, 1)
    assert (await doctor()).code == 1


async def test_a_team_that_never_was_is_not_sound(scene: Scene, doctor: Doctor):
    known = await scene.team()
    for name in ("nope", "", "no\npe", "\udcff"):
        found = await doctor("--team", known.id, "--team", name)
        assert (found.code, found.out) == (2, "")
        assert found.err == f"waybill: the database has no team {name!a}\n"


async def test_a_deleted_team_is_known(scene: Scene, doctor: Doctor):
    gone = await scene.team()
    await scene.rows("update teams set status = 'deleted' where id = :id returning id", id=gone.id)
    assert (await doctor("--team", gone.id)).code == 0


async def test_books_that_cannot_be_read_are_neither_sound_nor_broken(doctor: Doctor):
    found = await doctor(url="postgresql://nobody:x@127.0.0.1:9/none")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("waybill: the database cannot be read")
