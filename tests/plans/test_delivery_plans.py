"""Lists of deliveries, replays and summaries read what they show and little more, however much was delivered."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from shared import deliveries, delivery_lists, delivery_queues, replays
from shared.delivery_lists import UNDELIVERED, Filter, count_statement, page_statement, summary_statement
from shared.replays import Piece
from shared.snapshot import FAST_INDEXES
from shared.states import DeliveryState
from tests.plans.test_plans import nodes
from tests.servers import Servers

LARGE = {"deliveries", "events", "delivery_attempts"}
ROWS, TEAMS = 40_000, 20
OF_TEAM = ROWS // TEAMS
PAGE = 100
TEAM = "team-1"
ENDPOINT = UUID(int=1)
HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
"""A delivery a minute: 60 since then, and as many whose ids may be as young."""

FILL = f"""
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed)
  select 'team-' || n, 'o', '' from generate_series(0, {TEAMS - 1}) n;
insert into webhook_endpoints (id, team_id, url, events, secret_sealed)
  select lpad(to_hex(n), 32, '0')::uuid, 'team-' || n, 'https://a.example', '{{*}}', ''
    from generate_series(0, {TEAMS - 1}) n;
insert into events (id, type, team_id, job_id, sequence, body, created_at)
  select md5('event' || n)::uuid, 'job.completed', 'team-' || n % {TEAMS}, md5('job' || n / 100)::uuid, n % 100 + 1,
         repeat('x', 500), now() - make_interval(mins => {ROWS} - n) from generate_series(1, {ROWS}) n;
insert into deliveries (id, event_id, event_type, team_id, job_id, queue_id, endpoint_id, state, created_at)
  select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - ({ROWS} - n) * 60000::bigint), 12, '0') || '70008'
          || lpad(to_hex(n), 15, '0'))::uuid, md5('event' || n)::uuid, 'job.completed', 'team-' || n % {TEAMS},
         md5('job' || n / 100)::uuid, lpad(to_hex(n % {TEAMS}), 32, '0')::uuid,
         lpad(to_hex(n % {TEAMS}), 32, '0')::uuid,
         case when n % 997 < 20 then 'exhausted' when n > {ROWS} - 400 then 'pending' else 'delivered' end,
         now() - make_interval(mins => {ROWS} - n) from generate_series(1, {ROWS}) n;
insert into delivery_attempts (delivery_id, number) select id, 1 from deliveries;
"""


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True, options="-c jit=off -c max_parallel_workers_per_gather=0") as connection:
        connection.execute(FILL)
        connection.execute("vacuum analyze")
        connection.execute(FAST_INDEXES.replace("local ", ""))
        yield connection
    servers.drop_database(url)


def read(connection: psycopg.Connection[Any], statement: tuple[str, Mapping[str, Any]]) -> int:
    """Rows of large tables that the statement read, from the tables themselves; it scans none of them."""
    sql, params = statement
    with connection.transaction(force_rollback=True):
        [[[found]]] = connection.execute(f"explain (analyze, format json) {sql}".encode(), params).fetchall()
    plan = list(nodes(found["Plan"]))
    assert [node for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE] == []
    return sum(_rows(node) for node in plan if node.get("Relation Name") in LARGE and not _is_index_only(node))


def _rows(node: Mapping[str, Any]) -> int:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return round((node["Actual Rows"] + removed) * node["Actual Loops"])


def _is_index_only(node: Mapping[str, Any]) -> bool:
    return node["Node Type"] == "Index Only Scan" and node["Heap Fetches"] == 0


DEAD = [DeliveryState.EXHAUSTED, DeliveryState.ABORTED, DeliveryState.DISCARDED]
DUE = [DeliveryState.PENDING, DeliveryState.FAILING]
LISTS: list[tuple[str, Filter, int]] = [
    ("of a team", Filter(tests=False, team_id=TEAM), 0),
    ("of an endpoint", Filter(tests=False, team_id=TEAM, endpoint_id=ENDPOINT), 0),
    ("dead ones", Filter(tests=False, team_id=TEAM, endpoint_id=ENDPOINT, states=DEAD), 2 * OF_TEAM // 40),
    ("waiting ones", Filter(tests=False, team_id=TEAM, states=DUE), 2 * 400 // TEAMS),
    ("undelivered ones", Filter(tests=False, team_id=TEAM, states=UNDELIVERED), 3 * OF_TEAM // 40),
    ("of an event", Filter(tests=False, team_id=TEAM, event_id=uuid4()), 1),
    ("of a job", Filter(tests=False, team_id=TEAM, job_id=uuid4()), 100),
    (
        "of the last hour",
        Filter(tests=False, team_id=TEAM, since=HOUR_AGO, states=[DeliveryState.DELIVERED]),
        2 * 120 // TEAMS,
    ),
]


@pytest.mark.parametrize(("wanted", "most"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_a_list_reads_what_it_shows(database: psycopg.Connection[Any], wanted: Filter, most: int):
    assert read(database, page_statement(wanted, limit=PAGE, offset=0)) <= 2 * PAGE + most
    assert read(database, count_statement(wanted)) <= most


def test_a_page_far_down_reads_an_index(database: psycopg.Connection[Any]):
    assert (
        read(database, page_statement(Filter(team_id=TEAM, tests=False), limit=PAGE, offset=OF_TEAM - PAGE)) <= 2 * PAGE
    )


def held(given: Mapping[str, Any], *, after: int = 0, allowed: int = 100) -> Any:
    return SimpleNamespace(
        id=uuid4(), team_id=TEAM, endpoint_id=ENDPOINT, next_seq=after, until_seq=ROWS, allowed=allowed, filter=given
    )


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({"event_ids": [str(uuid4()) for _ in range(100)]}, 300),
        ({"job_id": str(uuid4())}, 300),
        ({"types": ["job.completed"], "missed": True}, 3 * OF_TEAM),
        ({"states": ["exhausted"]}, 3 * OF_TEAM),
    ],
    ids=["events", "a job", "missed", "by state"],
)
def test_a_step_of_a_replay_reads_its_piece_of_the_log(
    database: psycopg.Connection[Any], given: Mapping[str, Any], most: int
):
    assert read(database, replays.make_statement(held(given), at_once=replays.LOOKED_AT)) <= most
    late = replays.make_statement(held(given, after=ROWS - 1000), at_once=replays.LOOKED_AT)
    assert read(database, late) <= 300
    piece = Piece(next_seq=ROWS - 1000, until_seq=ROWS)
    target = SimpleNamespace(id=ENDPOINT, team_id=TEAM)
    counted = replays.count_statement(target, replays.Filter(**given), piece, at_once=replays.COUNTED_AT_ONCE)
    assert read(database, counted) <= 300


def test_one_delivery_and_one_replay_are_found_by_their_ids(database: psycopg.Connection[Any]):
    [[id_]] = database.execute("select id from deliveries limit 1").fetchall()
    assert read(database, (delivery_lists.ONE, {"id": id_})) <= 2
    assert read(database, (delivery_lists.RETRY, {"id": id_})) <= 2
    hold = {"id": uuid4(), "burst_s": 1.0, "least": 100}
    assert read(database, (replays.HOLD, hold)) == 0


@pytest.mark.parametrize("team_id", [TEAM, None])
def test_a_summary_reads_the_last_day(database: psycopg.Connection[Any], team_id: str | None):
    since = datetime.now(UTC) - timedelta(hours=24)
    of_a_day = 25 * 60
    for sql, most in ((delivery_lists.OUTCOMES, 50_000), (delivery_lists.FIRST_ATTEMPTS, 2000)):
        assert read(database, summary_statement(sql, team_id, since, most=most)) <= 2 * of_a_day
    assert read(database, summary_statement(delivery_lists.OLDEST, team_id, since)) <= 3 * TEAMS


def test_new_queues_are_found_by_an_index_however_much_waits_in_others(database: psycopg.Connection[Any]):
    """A few dead endpoints hold all that waits, and a walk through the table to any such row seems cheap."""
    late = "update deliveries set state = 'pending' where queue_id in (select id from webhook_endpoints limit 4)"
    with database.transaction(force_rollback=True):
        database.execute(late)
        database.execute("analyze deliveries")
        database.execute("set local random_page_cost = 16")
        assert read(database, (delivery_queues.ENSURE, {"ids": [uuid4() for _ in range(10)]})) == 0
        assert read(database, (delivery_queues.DUE, {})) <= 3 * TEAMS
        gone = {"endpoint_id": uuid4(), "reason": "x", "limit": 500}
        assert read(database, (deliveries.DISCARD, gone)) == 0


def test_a_row_too_many_would_be_seen(database: psycopg.Connection[Any]):
    assert read(database, ("select worker from deliveries where team_id = %(team_id)s", {"team_id": TEAM})) == OF_TEAM
