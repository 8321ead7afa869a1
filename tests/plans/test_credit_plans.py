"""Reads of the ledger and due refills find their rows by an index, on tables large enough that a scan would hurt."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared import credit_accounts, credit_reports, refills
from shared.credit_accounts import COUNT_ENTRIES, ENTRIES, EntryFilter
from tests.servers import Servers

LARGE = {"credit_entries", "credit_accounts", "usage_daily"}
TEAM = "team-7"

FILL = """
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed)
  select 'team-' || n, 'o', '' from generate_series(0, 4999) n;
insert into credit_accounts (team_id, allocated, auto_refill, refill_amount, refill_period, next_refill_at)
  select 'team-' || n, 1000, n < 500, 10, 'monthly', case when n < 500 then now() + n * interval '1 hour' end
    from generate_series(0, 4999) n;
insert into credit_entries (id, team_id, job_id, kind, amount, "before", after, reason)
  select md5('entry' || n)::uuid, 'team-' || n % 100, md5('job' || n)::uuid, 'deduction', -1, 1, 0, ''
    from generate_series(1, 30000) n;
insert into usage_daily (team_id, day, job_type)
  select 'team-' || n % 100, current_date - n / 100, 't' from generate_series(0, 29999) n;
vacuum analyze;
"""

WINDOW = {"since": datetime(2026, 1, 1, tzinfo=UTC), "before": datetime(2099, 1, 1, tzinfo=UTC)}
FILTERS: Mapping[str, EntryFilter] = {
    "all": EntryFilter(team_id=TEAM),
    "kind": EntryFilter(team_id=TEAM, kind="deduction"),
    "dates": EntryFilter(team_id=TEAM, **WINDOW),
    "job": EntryFilter(team_id=TEAM, job_id=UUID(int=1)),
}


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in filter(str.strip, FILL.split(";")):
            connection.execute(statement)
        connection.execute("set jit = off")
        yield connection
    servers.drop_database(url)


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def plan(connection: psycopg.Connection[Any], sql: str, params: Any) -> list[Mapping[str, Any]]:
    [[[found]]] = connection.execute("explain (format json) " + sql, params).fetchall()
    return list(nodes(found["Plan"]))


def scanned(found: list[Mapping[str, Any]]) -> list[str]:
    return [
        node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
    ]


@pytest.mark.parametrize("name", FILTERS)
def test_entries_are_counted_by_an_index(database: psycopg.Connection[Any], name: str):
    wanted = FILTERS[name]
    found = plan(database, COUNT_ENTRIES.format(wanted.where), vars(wanted))
    assert scanned(found) == []
    if name == "all":
        assert {"Index Only Scan"} <= {node["Node Type"] for node in found}
    if name == "job":
        assert "uq_credit_entries_job_id_kind" in {node.get("Index Name") for node in found}


@pytest.mark.parametrize("name", ["all", "kind", "dates"])
def test_a_page_of_entries_is_read_in_the_order_of_its_index(database: psycopg.Connection[Any], name: str):
    wanted = FILTERS[name]
    found = plan(database, ENTRIES.format(wanted.where), {**vars(wanted), "limit": 20, "offset": 0})
    assert "ix_credit_entries_team_id_seq" in {node.get("Index Name") for node in found}
    assert "Sort" not in {node["Node Type"] for node in found}


def test_due_refills_are_found_by_their_time(database: psycopg.Connection[Any]):
    found = plan(database, refills.DUE, (100,))
    assert "ix_credit_accounts_next_refill_at" in {node.get("Index Name") for node in found}
    assert scanned(found) == []


def test_the_rest_reads_the_rows_of_one_team(database: psycopg.Connection[Any]):
    entry = {
        "id": UUID(int=2), "team_id": TEAM, "job_id": None, "kind": "allocation", "amount": 1, "reason": "",
        "payment_nanousd": None, "refill_at": None, "of_used": False,
    }  # fmt: skip
    for sql, params in (
        (credit_reports.TRENDS, {"team_id": TEAM, "days": 30}),
        (credit_accounts.ENTER, entry),
        (credit_accounts.LOCK, (TEAM,)),
        (refills.LOCK_DUE, (TEAM,)),
    ):
        assert scanned(plan(database, sql, params)) == [], sql
