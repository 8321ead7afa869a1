"""Lines are ended one by one where they lie, also while the planner takes the table that they came into for empty."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from shared import unfinished_calls
from tests.servers import Servers

LINES = 1000
JOB = uuid4()
FILL = """
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed) values ('t', 'o', '');
"""
LINE = """
insert into calls (id, job_id, team_id, model, candidates, deadline_at, batched, custom_id)
select gen_random_uuid(), %s, 't', 'm', array['m'], now() + interval '1 day', true, n from generate_series(1, %s) n
"""
BATCH = "insert into jobs (id, team_id, organization_id, job_type, is_batch) values (%s, 't', 'o', 'batch', true)"
PARAMS = {
    "job_id": JOB, "after": UUID(int=0), "ended_before": 0, "limit": LINES,
    "state": "cancelled", "code": "cancelled", "message": "",
}  # fmt: skip


@pytest.fixture
def taken_for_empty(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    """A table that was analysed while nobody could see what was being copied into it."""
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True) as copies, psycopg.connect(url, autocommit=True) as looks:
        copies.execute(FILL)
        copies.execute(BATCH, (JOB,))
        with copies.transaction():
            copies.execute(LINE, (JOB, LINES))
            looks.execute("analyze calls")
        yield copies
    servers.drop_database(url)


def compared(plan: dict[str, Any]) -> int:
    """How many pairs of rows the joins of a plan that ran looked at and threw away."""
    own = plan.get("Rows Removed by Join Filter", 0)
    return own + sum(compared(child) for child in plan.get("Plans", ()))


def whole_reads(plan: dict[str, Any]) -> int:
    """How many times a plan reads the table of calls from one end to the other."""
    own = plan["Node Type"] == "Seq Scan" and plan["Relation Name"] == "calls"
    return own + sum(whole_reads(child) for child in plan.get("Plans", ()))


def plan_of(database: psycopg.Connection[Any], **params: Any) -> dict[str, Any]:
    """The plan by which the lines are ended."""
    given = PARAMS | params
    with database.transaction(force_rollback=True):
        database.execute(unfinished_calls.LOCK_LINES, given)
        [[[found]]] = database.execute("explain (analyze, format json) " + unfinished_calls.END_LINES, given).fetchall()
        [limits] = database.execute("select current_setting('enable_hashjoin'), current_setting('enable_mergejoin')")
        assert limits == ("on", "on"), "what comes after it is planned as ever"
    plan: dict[str, Any] = found["Plan"]
    return plan


def test_no_line_is_looked_for_among_all_calls(taken_for_empty: psycopg.Connection[Any]):
    assert compared(plan_of(taken_for_empty)) == 0


def test_a_step_does_not_read_all_calls_once_statistics_tell_how_many_there_are(
    taken_for_empty: psycopg.Connection[Any],
):
    taken_for_empty.execute("analyze calls")
    plan = plan_of(taken_for_empty, limit=LINES // 2)
    assert (compared(plan), whole_reads(plan)) == (0, 0)
