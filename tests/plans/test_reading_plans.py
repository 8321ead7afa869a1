"""Lists and usage reports read what they show and little more, however many jobs there are."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bench.reading_rows import ORGANIZATIONS, TEAMS, fill
from shared import batch_lists, batch_results, batch_retries, dashboard, jobs, model_aliases, usage
from shared.job_lists import CALLS, PLAIN, RETRIED, RUNNING, Filter, Part, count_statement, page_statement
from shared.snapshot import FAST_INDEXES
from shared.usage import Interval
from tests.plans.test_plans import nodes
from tests.servers import Servers

LARGE = {"jobs", "calls", "attempts", "call_payloads"}
CALLS_MADE = 60_000
TEAM, SMALL = "team-0", "team-7"
OF_ORGANIZATION = [f"team-{n}" for n in range(1, TEAMS, ORGANIZATIONS)]
MONTH = Interval(datetime.now(UTC) - timedelta(days=30), datetime.now(UTC))
PAGE = 100
CALLS_OF_PAGE = PAGE * 6
"""A job has at most five calls; with the job itself six rows."""
EVERYTHING = tuple(usage.MEASURES)


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        fill(connection, calls=CALLS_MADE)
    with psycopg.connect(url, autocommit=True, options="-c jit=off -c max_parallel_workers_per_gather=0") as connection:
        connection.execute(FAST_INDEXES.replace("local ", ""))
        yield connection
    servers.drop_database(url)


class Plan:
    """What a statement really did."""

    def __init__(self, connection: psycopg.Connection[Any], sql: str, params: Any) -> None:
        found = connection.execute(f"explain (analyze, format json) {sql}".encode(), params).fetchall()
        self.nodes = list(nodes(found[0][0][0]["Plan"]))

    @property
    def scanned(self) -> list[str]:
        """The large tables that were read from end to end."""
        return [
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
        ]

    def rows(self, *, heap: bool) -> int:
        """Rows read from tables; heap: without those that an index alone gave."""
        return sum(_read(node) for node in self.nodes if "Relation Name" in node and not (heap and _index_only(node)))


def _read(node: Mapping[str, Any]) -> int:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return round((node["Actual Rows"] + removed) * node["Actual Loops"])


def _index_only(node: Mapping[str, Any]) -> bool:
    return node["Node Type"] == "Index Only Scan" and node["Heap Fetches"] == 0


def jobs_of(database: psycopg.Connection[Any], *teams: str) -> int:
    [[count]] = database.execute("select count(*) from jobs where team_id = any(%s)", (list(teams),)).fetchall()
    return int(count)


def lines_of(database: psycopg.Connection[Any], within: Interval, *teams: str) -> int:
    days = [bound.date() if bound else None for bound in within]
    [[count]] = database.execute(
        "select count(*) from usage_daily where team_id = any(%s) and day between coalesce(%s, '-infinity'::date)"
        " and coalesce(%s, 'infinity'::date)",
        (list(teams), *days),
    ).fetchall()
    return int(count)


PAGES: list[tuple[str, Filter, Part]] = [
    ("newest of all", Filter(), Part(limit=PAGE)),
    ("far down all", Filter(), Part(limit=PAGE, offset=15_000)),
    ("newest of a team", Filter(team_id=TEAM), Part(limit=PAGE)),
    ("far down a team", Filter(team_id=TEAM), Part(limit=PAGE, offset=3000)),
    ("a team's failed ones", Filter(team_id=TEAM, statuses=["failed"]), Part(limit=PAGE)),
    ("a team's of one user", Filter(team_id=TEAM, user_id="user-3"), Part(limit=PAGE)),
    ("a team's by id part", Filter(team_id=TEAM, id_part="abc"), Part(limit=PAGE)),
    ("of one month", Filter(since=MONTH.since, before=MONTH.before), Part(limit=PAGE)),
    ("all by completion", Filter(), Part(limit=PAGE, sort_by="completed_at")),
    ("a team's by status", Filter(team_id=TEAM), Part(limit=PAGE, sort_by="status", order="asc")),
    ("one task", Filter(external_task_id="task-77"), Part(limit=PAGE)),
    ("open ones", Filter(statuses=["pending"]), Part(limit=PAGE)),
    ("nobody's", Filter(user_id="nobody"), Part(limit=PAGE)),
]


@pytest.mark.parametrize(("wanted", "part"), [row[1:] for row in PAGES], ids=[row[0] for row in PAGES])
@pytest.mark.parametrize("calls", [RUNNING, RETRIED, PLAIN], ids=["job objects", "summaries", "plain"])
def test_a_page_reads_the_jobs_it_shows(database: psycopg.Connection[Any], wanted: Filter, part: Part, calls: str):
    plan = Plan(database, *page_statement(wanted, part, calls))
    assert plan.scanned == []
    # Twice the calls: job objects look at a job's calls for the running ones and for the models. The open jobs are 400.
    assert plan.rows(heap=True) <= 2 * CALLS_OF_PAGE + 400


@pytest.mark.parametrize("wanted", [row[1] for row in PAGES], ids=[row[0] for row in PAGES])
def test_a_total_is_counted_from_an_index(database: psycopg.Connection[Any], wanted: Filter):
    plan = Plan(database, *count_statement(wanted))
    assert plan.scanned == []
    assert plan.rows(heap=True) <= 400
    if wanted.team_id is not None:
        assert plan.rows(heap=False) <= jobs_of(database, wanted.team_id)


@pytest.mark.parametrize("within", [Interval(), MONTH], ids=["always", "a month"])
@pytest.mark.parametrize(
    ("teams", "by"),
    [([TEAM], ("job_type",)), ([SMALL], ("job_type",)), (OF_ORGANIZATION, ("team_id", "model", "provider", "day"))],
    ids=["largest team", "small team", "organization"],
)
def test_sums_read_the_rollup_of_their_teams_and_the_open_jobs(
    database: psycopg.Connection[Any], within: Interval, teams: list[str], by: tuple[usage.Dimension, ...]
):
    plan = Plan(database, *usage.sums_statement(teams, within, by=by, measures=EVERYTHING))
    assert plan.scanned == []
    # A year of several teams is a good part of the rollup: reading it from end to end is the cheaper way.
    everything = len(teams) > 1 and within == Interval()
    of = [f"team-{n}" for n in range(TEAMS)] if everything else teams
    # Of the two days that are not wanted whole the calls and attempts of a few jobs are read.
    assert plan.rows(heap=False) <= lines_of(database, within, *of) + 400 + 20 * jobs_of(database, *of) // 100


def test_totals_of_a_team_read_its_rollup_and_the_open_jobs(database: psycopg.Connection[Any]):
    plan = Plan(database, usage.TOTALS, {"teams": [SMALL]})
    assert plan.scanned == []
    assert plan.rows(heap=False) <= lines_of(database, Interval(), SMALL) + 400


def test_totals_of_a_model_read_the_lines_of_that_model(database: psycopg.Connection[Any]):
    plan = Plan(database, model_aliases.USED, (["model-5"],))
    [[lines]] = database.execute("select count(*) from usage_daily where model = 'model-5'").fetchall()
    assert plan.rows(heap=False) <= lines


def test_users_of_a_month_read_the_jobs_of_that_month(database: psycopg.Connection[Any]):
    plan = Plan(database, *usage.of_users_statement(TEAM, MONTH))
    wanted = Filter(team_id=TEAM, since=MONTH.since, before=MONTH.before)
    [[jobs]] = database.execute(*_encoded(count_statement(wanted))).fetchall()
    assert plan.scanned == []
    assert plan.rows(heap=False) <= jobs


def test_a_job_is_looked_into_by_its_calls(database: psycopg.Connection[Any]):
    [[job_id]] = database.execute("select job_id from calls limit 1").fetchall()
    plan = Plan(database, CALLS, (job_id, 1000, 0))
    assert plan.scanned == []
    assert plan.rows(heap=False) <= 3 * 5


LINES = 4000
BATCH = f"""
with j as (
    insert into jobs (id, team_id, organization_id, job_type, is_batch, status, calls_total, calls_completed)
    values (gen_random_uuid(), '{SMALL}', 'org-3', 'batch', true, 'in_progress', {LINES}, 1000) returning id, team_id
), b as (
    insert into batches (id, team_id, key_id, endpoint, status, input_file_id, completion_window, models, expires_at)
    select id, team_id, id, 'chat', 'in_progress', id, '24h', array['model-1', 'model-2'], now() from j
), c as (
    insert into calls (id, job_id, team_id, state, batched, custom_id, position, model, candidates, deadline_at,
                       completed_at, lease_expires_at, ended_number)
    select md5('line' || n)::uuid, id, team_id, s.state, true, n, n, 'model-1', array['model-1'], now(),
           case s.state when 'completed' then now() end, case s.state when 'in_progress' then now() end,
           case s.state when 'completed' then n end
      from j, generate_series(1, {LINES}) n,
           lateral (select case when n <= 1000 then 'completed' when n <= 1020 then 'in_progress' else 'pending' end
                   ) s(state)
)
select id from j
"""


@pytest.fixture
def batch(database: psycopg.Connection[Any]) -> Iterator[UUID]:
    """The job of a batch that is under way, undone afterwards."""
    with database.transaction(force_rollback=True):
        [[job_id]] = database.execute(BATCH).fetchall()
        database.execute("analyze calls")
        yield job_id


@pytest.mark.parametrize("calls", [RUNNING, RETRIED, PLAIN], ids=["job objects", "summaries", "plain"])
def test_a_batch_is_listed_without_reading_its_lines(database: psycopg.Connection[Any], batch: UUID, calls: str):
    plan = Plan(database, *page_statement(Filter(team_id=SMALL, job_type="batch"), Part(limit=PAGE), calls))
    assert plan.scanned == []
    # Its lines in progress are counted, the team's jobs are looked through in an index.
    assert plan.rows(heap=False) <= 40 + jobs_of(database, SMALL)


def test_a_batch_is_read_by_what_runs_of_it(database: psycopg.Connection[Any], batch: UUID):
    plan = Plan(database, jobs.GET, (batch,))
    assert plan.scanned == []
    assert plan.rows(heap=False) <= 40


def test_attempts_and_texts_are_looked_up_for_the_lines_of_the_page(database: psycopg.Connection[Any], batch: UUID):
    plan = Plan(database, CALLS, (batch, 10, LINES - 10))
    assert plan.scanned == []
    assert max(node["Actual Loops"] for node in plan.nodes) <= 10


@pytest.mark.parametrize(
    ("sql", "given"), [(batch_lists.GET, {}), (batch_lists.LIST, {"after": None, "limit": 20})], ids=["one", "a page"]
)
def test_a_batch_object_is_made_of_what_runs_and_what_failed(
    database: psycopg.Connection[Any], batch: UUID, sql: str, given: dict[str, Any]
):
    database.execute("update batches set in_progress_at = now() where id = %s", (batch,))
    failing = "update calls set state = 'failed', completed_at = now(), error_code = 'timed_out'"
    database.execute(failing + " where job_id = %s and position between 2001 and 2010", (batch,))
    database.execute("update jobs set calls_failed = 10 where id = %s", (batch,))
    plan = Plan(database, sql, {"team_id": SMALL, "id": batch, **given})
    assert plan.scanned == []
    # 20 in progress, 10 failed, the batch and its job.
    assert plan.rows(heap=False) <= 40


def test_what_is_left_to_be_retried_is_found_among_the_lines_of_the_family(
    database: psycopg.Connection[Any], batch: UUID
):
    for sql, given in (
        (batch_retries.ENDED, {"parent": batch, "statuses": ["failed"], "codes": []}),
        (batch_retries.SUCCEEDED, ([batch],)),
    ):
        plan = Plan(database, sql, given)
        assert plan.scanned == []
        assert plan.rows(heap=False) <= LINES + 10


def test_a_page_of_ended_lines_reads_no_line_before_or_after_it(database: psycopg.Connection[Any], batch: UUID):
    given = {"batch_id": batch, "after": 500, "limit": 20, "most_bytes": batch_results.PAGE_BYTES}
    plan = Plan(database, batch_results.READ_PAGE, given)
    assert plan.scanned == []
    assert plan.rows(heap=False) <= 20


def test_the_first_page_reads_what_is_open_and_what_was_made_today(database: psycopg.Connection[Any]):
    plan = Plan(database, dashboard.COUNTS, None)
    [[today]] = database.execute("select count(*) from jobs where created_at >= date_trunc('day', now())").fetchall()
    assert plan.scanned == []
    assert plan.rows(heap=False) <= 400 + today + 4 * TEAMS


def test_a_scan_and_a_row_too_many_would_be_seen(database: psycopg.Connection[Any]):
    plan = Plan(database, "select count(*) from jobs where metadata = '{}'", None)
    assert plan.scanned == ["jobs"]
    assert plan.rows(heap=True) == CALLS_MADE // 3


def _encoded(statement: tuple[str, Any]) -> tuple[bytes, Any]:
    return statement[0].encode(), statement[1]
