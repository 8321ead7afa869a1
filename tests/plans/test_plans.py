"""The hot statements find their rows by an index, on tables large enough that a scan would hurt."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import orjson
import psycopg
import pytest

from shared import (
    attempts,
    batch_ends,
    callback_states,
    calls,
    clock,
    deliveries,
    delivery_queues,
    dispatching,
    endpoint_health,
    figures,
    ids,
    jobs,
    keys,
    outbox,
    payloads,
    progress,
    provider_slowdowns,
    queue_limits,
    queue_positions,
    sample_deliveries,
    unfinished_calls,
    waiting_calls,
    webhook_stats,
)
from tests.servers import Servers

LARGE = {"calls", "jobs", "attempts", "deliveries", "events", "call_payloads", "virtual_keys", "holds"}
ROWS = 20_000

FILL = f"""
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed)
  select 'team-' || n, 'o', '' from generate_series(0, 199) n;
insert into virtual_keys (id, hash, hint, team_id)
  select gen_random_uuid(), sha256(n::text::bytea), '', 'team-' || n % 200 from generate_series(1, {ROWS}) n;
insert into jobs (id, team_id, organization_id, job_type, status, completed_at, calls_total, calls_completed)
  select md5('job' || n)::uuid, 'team-' || n % 200, 'o', 't',
         case when n > 100 then 'completed' else 'in_progress' end,
         case when n > 100 then now() end, 2, case when n > 100 then 2 else 0 end from generate_series(1, {ROWS}) n;
insert into calls (id, job_id, team_id, state, model, candidates, deadline_at, completed_at, rung_at, lease_expires_at,
                   batched, custom_id, key_id)
  select md5('call' || n)::uuid, md5('job' || ((n + 1) / 2))::uuid, 'team-' || n % 200,
         case when n > 600 then 'completed' when n > 400 then 'in_progress' else 'pending' end, 'm', '{{m}}',
         now() + interval '1 hour', case when n > 600 then now() end,
         case when n not between 200 and 400 then now() end,
         case when n between 401 and 600 then now() - interval '1 second' end,
         n between 300 and 500, case when n between 300 and 500 then 'line-' || n end,
         case when n between 300 and 500 then md5('key' || n % 200)::uuid end
    from generate_series(1, {2 * ROWS}) n;
insert into call_payloads (call_id, request, erase_at)
  select id, '{{}}', case when ascii(id::text) < 56 then now() + interval '30 minutes' end from calls;
insert into attempts (call_id, number, alias, worker, outcome, ended_at)
  select id, 1, 'm', 'w', 'succeeded', now() from calls;
insert into events (id, type, team_id, job_id, subject_id, sequence, body)
  select md5('event' || n)::uuid, 'job.created', 'team-' || n % 200, md5('job' || n)::uuid, null, 1, '{{}}'
    from generate_series(1, {ROWS}) n;
insert into deliveries (id, event_id, event_type, queue_id, team_id, job_id, callback, state)
  select md5('delivery' || n)::uuid, md5('event' || n)::uuid, 'job.created', md5('queue' || n % 200)::uuid,
         'team-' || n % 200, md5('job' || n)::uuid, 'job', case when n % 200 < 20 then 'pending' else 'delivered' end
    from generate_series(1, {ROWS}) n;
insert into delivery_queues (id, team_id) select distinct queue_id, team_id from deliveries;
analyze;
"""


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute("set jit = off")
        yield connection
    servers.drop_database(url)


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scanned(connection: psycopg.Connection[Any], sql: str, params: Any) -> list[str]:
    """The large tables this statement reads from end to end."""
    with connection.transaction(force_rollback=True):
        [[[found]]] = connection.execute("explain (format json) " + sql, params).fetchall()
    return [node["Relation Name"] for node in nodes(found["Plan"])
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE]  # fmt: skip


def report(**fields: Any) -> str:
    return orjson.dumps([{"id": str(uuid4()), "number": 1, "state": "completed", **fields} for _ in range(8)]).decode()


IDS = [uuid4() for _ in range(8)]
JOB = uuid4()
TEXTS = orjson.dumps(["{}"] * 8).decode()
EVENTS = orjson.dumps([
    {"id": id_, "type": "job.completed", "team_id": "team-1", "job_id": id_, "subject_id": id_, "sequence": 1,
     "body": ""}
    for id_ in IDS
]).decode()  # fmt: skip
ENDPOINT = {"id": JOB, "first": ids.earliest(clock.now()), "since": clock.now(), "most": 10_000}
SAMPLES = {"first": ids.earliest(clock.now()), "most": 10}
STATEMENTS: Sequence[tuple[str, str, Any]] = (
    ("claim", calls.CLAIM, {"ids": IDS, "locked_teams": ["team-1"], "worker": "w", "lease_s": 30}),
    ("claim around", calls.CLAIM_AROUND, {"ids": IDS, "locked_teams": ["team-1"], "worker": "w", "lease_s": 30}),
    ("close", calls.CLOSE, (report(),)),
    ("renew", calls.RENEW, {"ids": IDS, "numbers": [1] * 8, "lease_s": 30}),
    ("end unfinished", unfinished_calls.END, {
        "job_ids": [JOB], "ended_before": [0], "call_ids": None, "state": "cancelled", "code": "cancelled",
        "message": "", "limit": 100}),
    ("lock lines", unfinished_calls.LOCK_LINES, {"job_id": JOB, "after": JOB, "limit": 100}),
    ("told lines", unfinished_calls.TOLD, {"job_id": JOB, "ended_before": 0}),
    ("end lines", unfinished_calls.END_LINES, {
        "job_id": JOB, "after": JOB, "ended_before": 0, "limit": 100,
        "state": "cancelled", "code": "cancelled", "message": ""}),
    ("batches whose jobs ended", batch_ends.JOBS_ENDED, ([JOB], [True])),
    ("batches left behind", batch_ends.LEFT_BEHIND, (100,)),
    ("erase unstored texts", payloads.ERASE_UNSTORED, (500,)),
    ("erase old texts", payloads.ERASE_OLD, {"days": 30, "limit": 500}),
    ("get call", calls.GET, (JOB, uuid4())),
    ("ended", calls.ENDED, {"ids": IDS}),
    ("any unfinished", calls.ANY_UNFINISHED, (JOB,)),
    ("store responses", calls.STORE_RESPONSES, (IDS, TEXTS)),
    ("lost", waiting_calls.LOST, {"batched": False, "rung_before_s": 5, "limit": 100}),
    ("lost lines", waiting_calls.LOST, {"batched": True, "rung_before_s": 5, "limit": 100}),
    ("slow a provider", provider_slowdowns.RECORD, {"alias": "m", "began_s": 1.0, "retry_after_s": None}),
    ("running at slowed providers", provider_slowdowns.RUNNING, (["x"],)),
    ("expired", waiting_calls.EXPIRED, (100,)),
    ("jobs held too long", jobs.HELD_TOO_LONG, (100,)),
    ("unfinished work", figures.UNFINISHED, ()),
    ("place in the queue", queue_positions.POSITION, {"team_id": "team-9", "call_id": JOB}),
    ("attempts per call", figures.ATTEMPTS_PER_CALL, {"first_id": JOB, "most": 2000}),
    ("overdue calls", waiting_calls.OVERDUE, (100,)),
    ("unfinished of teams", waiting_calls.UNFINISHED_OF_TEAMS, (64, ["team-1", "team-2"])),
    ("waiting of teams", waiting_calls.WAITING_OF_TEAMS, (["team-1", "team-2"], [100, 100_001])),
    ("limited calls", waiting_calls.LIMITED, (IDS,)),
    ("lock limited", waiting_calls.LOCK_LIMITED, (IDS,)),
    ("fitting", waiting_calls.FITTING, {"ids": IDS, "teams": ["team-1"]}),
    ("next of limited", waiting_calls.NEXT, {"teams": ["team-1"], "most": 64}),
    ("lacking a worker", waiting_calls.LACKING_A_WORKER, ()),
    ("close attempts", attempts.CLOSE, (orjson.dumps([{"call_id": str(uuid4()), "number": 1}] * 8).decode(),)),
    ("attempts of calls", attempts.OF_CALLS, (IDS,)),
    ("orphaned", attempts.ORPHANED, (30, 100)),
    ("lock jobs", jobs.LOCK, (IDS,)),
    ("get job", jobs.GET, (JOB,)),
    ("save jobs", jobs.SAVE, (orjson.dumps([{"id": str(JOB)}]).decode(),)),
    ("overdue jobs", jobs.OVERDUE, (100,)),
    ("idle jobs", jobs.IDLE, (86_400, 100)),
    ("find key", keys.FIND, (b"x" * 32,)),
    ("record events", outbox.RECORD, {"events": EVENTS}),
    ("endpoint's states", webhook_stats.STATES, ENDPOINT),
    ("endpoint's oldest", webhook_stats.OLDEST, ENDPOINT),
    ("endpoint's first attempts", webhook_stats.FIRST_ATTEMPTS, ENDPOINT),
    ("endpoint's undelivered", webhook_stats.UNDELIVERED, (JOB,)),
    ("recent samples", sample_deliveries.WAIT, {"endpoint_id": JOB, **SAMPLES}),
    ("discard samples", sample_deliveries.DISCARD, {"endpoint_id": JOB, "reason": "", **SAMPLES}),
    ("result of a sample", sample_deliveries.RESULT, (JOB,)),
    ("queues with due deliveries", delivery_queues.DUE, {}),
    ("full queues", queue_limits.MARK, {"limit": 100_000, "room": 0.9}),
    ("jobs that are watched", progress.WATCHED, {"recent_s": 10}),
    ("progress out of date", progress.DROP, {"limit": 500}),
    ("running calls", progress.RUNNING, (IDS,)),
    ("count attempts of endpoints", endpoint_health.COUNT, {
        "ids": IDS, "delivered": [False] * 8, "failures": [1] * 8, "refusals": [0] * 8, "only_refusals": [False] * 8,
        "gone": [False] * 8, "verified": [False] * 8, "given_up": [0] * 8, "statuses": [500] * 8, "urls": ["u"] * 8,
        "most_refusals": 10, "least_failures": 10, "disable_after_s": 432_000.0}),
    ("notices", endpoint_health.NOTICE, {"notices": [90, 70, 50], "disable_after_s": 432_000.0, "limit": 500}),
    ("urls of deliveries", endpoint_health.TARGETS, (IDS,)),
    ("endpoints to be cleared", endpoint_health.TO_CLEAR, (500,)),
    ("callbacks of calls", callback_states.OF_CALLS, {"job_id": JOB, "call_ids": IDS}),
    ("claim deliveries", deliveries.CLAIM, {
        "queues": [JOB, IDS[0]], "most": [4, 4], "slots": [5, 5], "are_open": [True, True], "tokens": [None, 1.0],
        "lease_s": 30, "timeout_s": 15, "margin_s": 10, "worker": "w",
    }),
)  # fmt: skip


@pytest.mark.parametrize(("sql", "params"), [row[1:] for row in STATEMENTS], ids=[row[0] for row in STATEMENTS])
def test_no_large_table_is_read_from_end_to_end(database: psycopg.Connection[Any], sql: str, params: Any):
    assert scanned(database, sql, params) == []


def test_texts_that_are_not_stored_are_looked_at_when_their_time_has_come(database: psycopg.Connection[Any]):
    with database.transaction(force_rollback=True):
        [[[found]]] = database.execute("explain (format json) " + payloads.ERASE_UNSTORED, (500,)).fetchall()
    reads = {node["Index Name"] for node in nodes(found["Plan"]) if "Index Name" in node}
    assert {"ix_call_payloads_erase_at", "pk_calls"} <= reads
    assert max(node["Plan Rows"] for node in nodes(found["Plan"])) <= 500, "however many there are"


def test_a_scan_would_be_seen(database: psycopg.Connection[Any]):
    assert scanned(database, "select * from calls where purpose = 'x'", None) == ["calls"]


NAMED = ("claim", "claim around", "close", "renew", "limited calls")
NOTHING_WAITS = """
delete from call_payloads where call_id in (select id from calls where state <> 'completed');
delete from calls where state <> 'completed';
vacuum analyze calls;
"""


def test_calls_that_are_named_are_found_by_their_names_though_the_plan_was_made_while_nothing_waited(servers: Servers):
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True) as idle:
        idle.execute(FILL)
        for statement in NOTHING_WAITS.split(";"):
            idle.execute(statement)
        for name, sql, params in STATEMENTS:
            if name in NAMED:
                assert indexes_of_calls(idle, sql, params, planned=False) == {"pk_calls"}, name
    servers.drop_database(url)


READ = {"keys": [uuid4()], "scopes": ["x"]}
FLOWS = {
    "teams": ["team-1", "team-2"], "rooms": [None, 3], "shares": [8, 8], "read": [32, 32], "flows": 128,
    "after_keys": [dispatching.FIRST.key_id] * 2, "after_aliases": [""] * 2, **READ}  # fmt: skip
DISPATCHING: Sequence[tuple[str, Any, set[str]]] = (
    (dispatching.LOOK, {"calls": 256, "lines": 1024}, {"ix_calls_waiting", "ix_calls_lines_waiting", "ix_calls_rung"}),
    (dispatching.CALLS, {"room": 256}, {"ix_calls_waiting"}),
    (dispatching.LINES, {"room": 256, "teams": ["team-9"], **READ}, {"ix_calls_lines_waiting"}),
    (dispatching.FLOWS_LINES, FLOWS, {"ix_calls_lines_flows", "ix_calls_lines_waiting"}),
    (dispatching.MARK, {"ids": IDS, "held": IDS[:2]}, {"pk_calls"}),
)
BUSY = {"ix_calls_team_unfinished", "ix_calls_rung"}
"""What runs and what is rung is little, however much waits."""
YOUNG = """
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed)
  select 'team-' || n, 'o', '' from generate_series(1, 200) n;
insert into jobs (id, team_id, organization_id, job_type, status, calls_total)
  select md5('job' || n)::uuid, 'team-' || n, 'o', 't', 'in_progress', 2 from generate_series(1, 200) n;
insert into calls (id, job_id, team_id, model, candidates, deadline_at, batched, custom_id, key_id)
  select gen_random_uuid(), md5('job' || 1 + n % 200)::uuid, 'team-' || 1 + n % 200, 'm', array['m' || n % 1000],
         now() + interval '1 day', true, n, md5('key' || n % 200)::uuid from generate_series(1, 5000) n;
"""


def planned_nodes(
    connection: psycopg.Connection[Any], sql: str, params: Any, *, planned: bool
) -> list[Mapping[str, Any]]:
    """The plan of a statement; planned: as the dispatcher forces it."""
    with connection.transaction(force_rollback=True):
        if planned:
            connection.execute(dispatching.PLANNED)
        [[[found]]] = connection.execute("explain (format json) " + sql, params).fetchall()
    return list(nodes(found["Plan"]))


def indexes_of_calls(connection: psycopg.Connection[Any], sql: str, params: Any, *, planned: bool = True) -> set[str]:
    """By which ones calls would be read; a read of the whole table has no name and is an error. planned: by force."""
    reads = [
        node
        for node in planned_nodes(connection, sql, params, planned=planned)
        if node.get("Relation Name") == "calls" or node["Node Type"] == "Bitmap Index Scan"
    ]
    return {node["Index Name"] for node in reads if node["Node Type"] not in ("ModifyTable", "Bitmap Heap Scan")}


def test_the_dispatcher_reads_in_the_order_of_its_indexes_whatever_the_statistics(
    database: psycopg.Connection[Any], servers: Servers
):
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True) as young:
        young.execute(YOUNG)
        for connection in (database, young):
            for sql, params, wanted in DISPATCHING:
                found = indexes_of_calls(connection, sql, params)
                assert wanted <= found <= wanted | BUSY, sql
                kinds = {node["Node Type"] for node in planned_nodes(connection, sql, params, planned=True)}
                assert sql == dispatching.MARK or not {"Sort", "Incremental Sort"} & kinds, sql
    servers.drop_database(url)
