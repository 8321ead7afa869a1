"""Worker units killed in mid-batch, and between each two steps of its beginning and end: every line once, paid once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from tests import batches
from tests.batches import ended, events_of, files_of, line, said, submit
from tests.invariants import verify, verify_money
from tests.stack import Stack
from tests.team import Team
from tests.waiting import until

LINES = 60
GATE = 20_261_122
"""Key of the advisory lock that a transaction is held by."""

HELD = f"""
create function hold_batch() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock({GATE});
    return new;
end $$;
create trigger hold_batch before update of status on batches for each row
    when (old.status <> new.status and new.status = '%s') execute function hold_batch();
"""
FREED = "drop trigger if exists hold_batch on batches; drop function if exists hold_batch"
WAITING = f"select 1 from pg_locks where locktype = 'advisory' and objid = {GATE} and not granted"


async def test_units_killed_at_every_step_of_a_batch_lose_and_double_nothing(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.delay(0.3)

    async with held_before(stack, "in_progress"):
        submitting = asyncio.create_task(submit(team, lines(team)))
        await killed_at(stack, team, "a unit has checked every line")
    made = await submitting
    await stack.provider.asked(team.model, LINES // 4)
    for pid in stack.worker_pids():
        stack.kill_worker_unit(pid)
    await verify_money(stack)
    await their_leases_end(stack, team)
    async with held_before(stack, "completed"):
        await killed_at(stack, team, "a unit has written both files")
    batch = await ended(team, made["id"])

    assert await lost_attempts(stack, team) > 1
    await every_line_came_once(stack, team, batch)


async def killed_at(stack: Stack, team: Team, step: str) -> None:
    """The unit that is held there dies."""
    await until(lambda: stack.sql(WAITING), step)
    (row,) = await stack.sql("select worker from batches where team_id = %s", team.team_id)
    stack.kill_worker_unit(int(row.worker.rsplit(":", 1)[1]))
    await their_leases_end(stack, team)


async def their_leases_end(stack: Stack, team: Team) -> None:
    """Of what dead units had, now and not in two seconds; what lives renews what it has."""
    for table in ("batches", "calls"):
        await stack.sql(
            f"update {table} set lease_expires_at = now() where team_id = %s and lease_expires_at is not null",
            team.team_id,
        )


def lines(team: Team) -> list[batches.Line]:
    return [line(team, f"n{n}", f"capital of France {n}") for n in range(LINES)]


async def every_line_came_once(stack: Stack, team: Team, batch: dict[str, Any]) -> None:
    """In the file, in the books, in the ledger; and the end of the batch was told once."""
    output, errors = await files_of(team, batch)
    assert (batch["status"], len(output), errors) == ("completed", LINES, {})
    assert {said(each) for each in output.values()} == {"Paris"}
    assert batch["cost_usd"] == round(sum(each["cost_usd"] for each in output.values()), 9)
    assert await team.charges() == [LINES]
    assert [type_ for type_ in await events_of(stack, batch["id"]) if type_.startswith("batch.")] == ["batch.completed"]
    assert [file["purpose"] for file in await files(team)] == ["batch_output", "batch"]
    await verify(stack)


async def lost_attempts(stack: Stack, team: Team) -> int:
    """Requests to the provider whose answer a killed unit took with it."""
    (row,) = await stack.sql(
        "select count(*) from attempts a join calls c on c.id = a.call_id where c.team_id = %s and outcome = 'unknown'",
        team.team_id,
    )
    return int(row.count)


async def files(team: Team) -> list[dict[str, Any]]:
    """The team's files, newest first."""
    found: list[dict[str, Any]] = (await team.client.get("/v1/files")).json()["data"]
    return found


@asynccontextmanager
async def held_before(stack: Stack, status: str) -> AsyncIterator[None]:
    """Whoever moves a batch to this status waits, in its transaction, until this ends."""
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as gate:
        await gate.execute(f"select pg_advisory_lock({GATE})".encode())
        await gate.execute((HELD % status).encode())
        try:
            yield
        finally:
            await gate.execute(f"select pg_advisory_unlock({GATE})".encode())
            await gate.execute(FREED.encode())
