"""The event log is read by its index: what a reader costs does not grow with the log, nor with others' logs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared import delivery_retention, event_log
from shared.event_log import END_OF_LOG, Filter
from tests.plans.test_plans import nodes
from tests.servers import Servers

EVENTS = 12_000
BUSY, QUIET = "busy", "quiet"
JOB = UUID(int=7)
PAGE = 100

FILL = f"""
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed)
  select name, 'o', '' from unnest(array['{BUSY}', '{QUIET}']) name;
insert into webhook_endpoints (id, team_id, url, events, secret_sealed, created_at)
  select md5('w' || n)::uuid, '{BUSY}', 'https://a.example/', '{{*}}', '', now() - interval '9 days'
    from generate_series(1, 3) n;
insert into events (id, type, team_id, job_id, sequence, body, created_at)
  select md5('e' || n)::uuid, 'job.completed', case when n <= 10 then '{QUIET}' else '{BUSY}' end,
         case when n % 10 = 0 then '{JOB}'::uuid end, case when n % 10 = 0 then n / 10 end, '{{}}',
         now() - interval '8 days' + n * interval '20 seconds' from generate_series(1, {EVENTS}) n;
insert into deliveries (id, event_id, event_type, queue_id, team_id, endpoint_id, state)
  select uuid7(), id, type, md5('w1')::uuid, team_id, md5('w1')::uuid, 'delivered' from events where seq % 2 = 0;
insert into delivery_attempts (delivery_id, number) select id, 1 from deliveries;
analyze;
"""


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True, options="-c jit=off -c max_parallel_workers_per_gather=0") as connection:
        connection.execute(FILL)
        yield connection
    servers.drop_database(url)


def rows_read(connection: psycopg.Connection[Any], sql: str, params: Any) -> int:
    """How many rows of tables and index entries the statement really read."""
    with connection.transaction(force_rollback=True):
        [[[found]]] = connection.execute(f"explain (analyze, format json) {sql}".encode(), params).fetchall()
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes(found["Plan"])
        if "Relation Name" in node
    )


def page_read(connection: psycopg.Connection[Any], wanted: Filter, *, team: str = BUSY, after: int = 0) -> int:
    """How many rows a page reads."""
    sql, values = event_log.page_statement(wanted)
    values |= {
        "team_id": team,
        "after": after,
        "upto": END_OF_LOG,
        "end": END_OF_LOG,
        "sequence": None,
        "since": datetime.now(UTC) - timedelta(days=9),
        "asks_since": True,
        "limit": PAGE,
        "most": event_log.most_looked_at(wanted, PAGE),
    }
    return rows_read(connection, sql, values)


@pytest.mark.parametrize("after", [0, EVENTS // 2, EVENTS - 5], ids=["oldest", "middle", "newest"])
def test_a_page_reads_the_events_it_shows(database: psycopg.Connection[Any], after: int):
    assert page_read(database, Filter(), after=after) <= PAGE + 2


def test_a_team_that_was_quiet_for_long_is_not_looked_for_among_the_others(database: psycopg.Connection[Any]):
    assert page_read(database, Filter(), team=QUIET, after=10) <= 2


def test_a_page_of_a_job_reads_that_job(database: psycopg.Connection[Any]):
    assert page_read(database, Filter(job_id=JOB)) <= PAGE + 3
    assert page_read(database, Filter(job_id=JOB), after=EVENTS - 100) <= 10 + 10 + 3


def test_a_filter_that_finds_nothing_reads_its_share_and_no_more(database: psycopg.Connection[Any]):
    assert page_read(database, Filter(types=["job.failed"])) <= 2 * event_log.LOOKED_AT + 2


def test_what_was_missed_is_found_by_event_and_endpoint(database: psycopg.Connection[Any]):
    [[endpoint]] = database.execute("select md5('w1')::uuid").fetchall()
    assert page_read(database, Filter(undelivered=True, endpoint_id=endpoint)) <= 10 * PAGE


def test_a_moment_is_found_by_bisection(database: psycopg.Connection[Any]):
    values = {"team_id": BUSY, "at": datetime.now(UTC) - timedelta(days=4), "end": END_OF_LOG}
    assert rows_read(database, event_log.PLACE, values) <= 50


def test_a_look_for_news_reads_the_news(database: psycopg.Connection[Any]):
    assert rows_read(database, event_log.NEWS_OF_TEAMS, ([BUSY, QUIET], [EVENTS - 3, 10])) <= 3


def test_retention_looks_at_its_step(database: psycopg.Connection[Any]):
    assert rows_read(database, event_log.DELETE_OLD, {"after": 0, "days": 30, "limit": PAGE}) <= PAGE
    for sql in (delivery_retention.DELETE_ATTEMPTS, delivery_retention.DELETE_FINAL):
        assert rows_read(database, sql, {"days": 30, "limit": PAGE}) <= PAGE
