"""A database that worked before a revision works on after it, and its books hold."""

import psycopg
import pytest
from alembic import command

from migrations.__main__ import config
from shared import books, waiting_calls
from shared.books import CHECKS
from shared.db import Database
from tests.servers import Servers

# One job of each kind as the first revision left them: ended with a call, and open with one that still waits.
WORKED_ON = """
insert into organizations (id, name) values ('o', 'O');
insert into teams (id, organization_id, callback_secret_sealed) values ('t', 'o', 'x');
insert into credit_accounts (team_id, allocated, used, held) values ('t', 10, 1, 1);
insert into jobs (id, team_id, organization_id, job_type, status, budget_mode, calls_total, calls_completed,
                  total_tokens, client_cost_nanousd, provider_cost_nanousd, latency_sum_ms, credits_charged,
                  credits_held, started_at, completed_at)
values ('01a00000-0000-7000-8000-000000000001', 't', 'o', 'kind', 'completed', 'job_based', 1, 1, 30, 900, 1100, 5, 1,
        0, app_now(), app_now()),
       ('01a00000-0000-7000-8000-000000000002', 't', 'o', 'kind', 'in_progress', 'job_based', 1, 0, 0, 0, 0, 0, 0,
        1, app_now(), null);
insert into credit_entries (id, team_id, job_id, kind, amount, "before", after, reason)
values (uuid7(), 't', null, 'allocation', 10, 0, 10, 'r'),
       (uuid7(), 't', '01a00000-0000-7000-8000-000000000001', 'deduction', -1, 10, 9, 'r');
insert into holds (job_id, team_id, credits) values ('01a00000-0000-7000-8000-000000000002', 't', 1);
insert into calls (id, job_id, team_id, state, model, candidates, attempt, deadline_at, completed_at, prompt_tokens,
                   completion_tokens, total_tokens, client_cost_nanousd, provider_cost_nanousd, latency_ms,
                   estimated_prompt_tokens, estimated_output_tokens)
values ('01a00000-0000-7000-8000-000000000003', '01a00000-0000-7000-8000-000000000001', 't', 'completed', 'm', '{m}', 2,
        app_now() + interval '1 hour', app_now(), 10, 20, 30, 900, 1100, 5, 40, 50),
       ('01a00000-0000-7000-8000-000000000004', '01a00000-0000-7000-8000-000000000002', 't', 'pending', 'm', '{m}', 0,
        app_now() + interval '1 hour', null, null, null, null, 0, 0, null, 40, 50);
insert into attempts (call_id, number, alias, provider, worker, outcome, ended_at, maybe_billed, provider_cost_nanousd,
                      client_cost_nanousd)
values ('01a00000-0000-7000-8000-000000000003', 1, 'm', 'openai', 'w', 'unknown', app_now(), true, 200, 0),
       ('01a00000-0000-7000-8000-000000000003', 2, 'm', 'anthropic', 'w', 'succeeded', app_now(), false, 900, 900);
"""
AREAS = ("money", "work", "usage")

# Its worker is gone: nobody knows what the attempt cost but by the prices of its alias.
LEFT_BEHIND = """
insert into model_aliases (alias, litellm_model, provider, actual_model, display_name, input_nanousd_per_mtok,
                           output_nanousd_per_mtok)
values ('m', 'openai/own', 'openai', 'own', 'M', 7000, 9000);
update calls set state = 'in_progress', attempt = 1, worker = 'w', lease_expires_at = app_now() - interval '1 hour'
 where id = '01a00000-0000-7000-8000-000000000004';
insert into attempts (call_id, number, alias, provider, litellm_model, worker)
values ('01a00000-0000-7000-8000-000000000004', 1, 'm', 'openai', 'openai/own', 'w');
"""


@pytest.fixture
def old_url(servers: Servers) -> str:
    url = servers.create_database()
    command.downgrade(config(url), "0001")
    with psycopg.connect(url) as connection:
        connection.execute(WORKED_ON)
    return url


async def test_what_ended_before_usage_was_rolled_up_is_in_it(old_url: str):
    command.upgrade(config(old_url), "head")
    db = Database(old_url, pool=2, name="waybill-test")
    async with db.statement() as tx:
        found = [await books.broken(tx, area, check) for area in AREAS for check in CHECKS[area]]
        lines = list(await tx.exec_driver_sql("select provider, provider_cost_nanousd from usage_daily order by 1"))
        open_tokens = await tx.exec_driver_sql("select estimate_tokens from jobs where status = 'in_progress'")
    await db.close()
    assert [finding for finding in found if finding] == []
    assert [tuple(line) for line in lines] == [("", 0), ("anthropic", 900), ("openai", 200)]
    assert open_tokens.scalar() == 90


async def test_an_attempt_that_was_left_behind_has_its_price_afterwards(old_url: str):
    with psycopg.connect(old_url) as connection:
        connection.execute(LEFT_BEHIND)
    command.upgrade(config(old_url), "head")
    db = Database(old_url, pool=2, name="waybill-test")
    async with db.statement() as tx:
        [left] = await waiting_calls.expired(tx, limit=10)
    await db.close()
    assert (left.litellm_model, left.input_nanousd_per_mtok, left.output_nanousd_per_mtok) == ("openai/own", 7000, 9000)


def test_the_newest_revision_can_be_taken_back(old_url: str):
    command.upgrade(config(old_url), "head")
    command.downgrade(config(old_url), "0001")
    with psycopg.connect(old_url) as connection:
        assert connection.execute("select count(*) from calls").fetchone() == (2,)
