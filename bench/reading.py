"""Lists and usage reports over a million calls, each beside the 100 ms it may take.

python -m bench.reading [--calls N] [--check]
"""

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from pydantic import SecretStr

from api.app import create_app
from bench import goals, machine
from bench.goals import Goal
from bench.loop import percentile
from bench.reading_rows import ORGANIZATIONS, TEAMS, fill
from bench.report import table
from shared import dashboard, usage
from shared.db import session_options
from shared.job_lists import PLAIN, RETRIED, RUNNING, Filter, Part, count_statement, page_statement
from shared.runtime import open_runtime
from shared.settings import Settings
from shared.snapshot import FAST_INDEXES
from shared.usage import Interval
from tests.servers import Servers, running_servers

GOAL_MS = 100
ROUNDS = 21
Statement = tuple[str, Any]

BUSY = "team-0"
"""The team with every fifth job, and all teams of its organization."""
ITS_ORGANIZATION = "org-0"
ITS_TEAMS = [f"team-{n}" for n in range(0, TEAMS, ORGANIZATIONS)]

EVERYTHING = tuple(usage.MEASURES)
MONTH = Interval(datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0))


@dataclass(frozen=True, kw_only=True)
class Read:
    """A request, and the statements that answer it."""

    path: str
    statements: Sequence[Statement]


def reads(jobs: int) -> list[Read]:
    """What is measured; `jobs`: how many there are."""
    filters: list[tuple[str, Filter, Part]] = [
        ("/jobs", Filter(), Part(limit=100)),
        (f"/jobs?offset={jobs - 1000}", Filter(), Part(limit=100, offset=jobs - 1000)),
        ("/jobs?status=failed", Filter(statuses=["failed"]), Part(limit=100)),
        ("/jobs?status=failed&offset=20000", Filter(statuses=["failed"]), Part(limit=100, offset=20_000)),
        ("/jobs?status=pending", Filter(statuses=["pending"]), Part(limit=100)),
        ("/jobs?job_type=mail", Filter(job_type="mail"), Part(limit=100)),
        ("/jobs?user_id=nobody", Filter(user_id="nobody"), Part(limit=100)),
        ("/jobs?external_task_id=task-77", Filter(external_task_id="task-77"), Part(limit=100)),
        ("/jobs?sort_by=completed_at", Filter(), Part(limit=100, sort_by="completed_at")),
        ("/jobs?sort_by=status&order=asc", Filter(), Part(limit=100, sort_by="status", order="asc")),
        (f"/jobs?organization_id={ITS_ORGANIZATION}", Filter(teams=ITS_TEAMS), Part(limit=100)),
        (f"/jobs?team_id={BUSY}&user_id=user-7", Filter(team_id=BUSY, user_id="user-7"), Part(limit=100)),
        (f"/teams/{BUSY}/jobs", Filter(team_id=BUSY), Part(limit=100)),
        (f"/teams/{BUSY}/jobs?sort_by=started_at", Filter(team_id=BUSY), Part(limit=100, sort_by="started_at")),
    ]
    lists = [Read(path=path, statements=listed(wanted, part)) for path, wanted, part in filters]
    return [*lists, *reports()]


def reports() -> list[Read]:
    """Summaries, usage, costs and statistics, all of them of the busiest team and organization."""
    one = Filter(team_id=BUSY)
    month = Filter(team_id=BUSY, since=MONTH.since)
    year = Interval(datetime.now(UTC) - timedelta(days=400))
    of_team: usage.Dimension = "team_id"
    return [
        Read(path=f"/jobs/teams/{BUSY}", statements=[count_statement(one), summaries(one)]),
        Read(path=f"/jobs/teams/{BUSY}?job_id_filter=abc", statements=listed(Filter(team_id=BUSY, id_part="abc"))),
        Read(path=f"/teams/{BUSY}/usage", statements=[of_jobs(BUSY, MONTH), users(MONTH), plain(month)]),
        Read(
            path=f"/teams/{BUSY}/usage?start_date={year.since:%Y-%m-%d}",
            statements=[of_jobs(BUSY, year), users(year), plain(one)],
        ),
        Read(path=f"/organizations/{ITS_ORGANIZATION}/usage", statements=[summed(MONTH, (of_team, "job_type"))]),
        Read(
            path=f"/organizations/{ITS_ORGANIZATION}/costs",
            statements=[summed(Interval(), (of_team, "model", "day"), ("cost", "provider_cost"))],
        ),
        Read(path=f"/jobs/organizations/{ITS_ORGANIZATION}/stats", statements=[summed(Interval(), (of_team,))]),
        Read(
            path=f"/jobs/organizations/{ITS_ORGANIZATION}/analytics",
            statements=[summed(Interval(), ("day", of_team, "model", "provider"), ("tokens", "provider_cost"))],
        ),
        Read(path=f"/teams/{BUSY}", statements=[(usage.TOTALS, {"teams": [BUSY]})]),
        Read(path="/teams", statements=[(usage.TOTALS, {"teams": [f"team-{n}" for n in range(TEAMS)]})]),
        Read(path=f"/organizations/{ITS_ORGANIZATION}", statements=[(usage.TOTALS, {"teams": ITS_TEAMS})]),
        Read(path="/stats/dashboard", statements=[(dashboard.COUNTS, None)]),
    ]


def listed(wanted: Filter, part: Part = Part(limit=100)) -> list[Statement]:  # noqa: B008 - it is frozen
    """A page of jobs and its total."""
    return [count_statement(wanted), page_statement(wanted, part, RUNNING)]


def plain(wanted: Filter) -> Statement:
    """The page of a usage report."""
    return page_statement(wanted, Part(limit=100), PLAIN)


def summaries(wanted: Filter) -> Statement:
    """A page of summaries."""
    return page_statement(wanted, Part(limit=20), RETRIED)


def of_jobs(team_id: str, within: Interval) -> Statement:
    """The sums of a team's usage."""
    return usage.sums_statement([team_id], within, by=("job_type",), measures=EVERYTHING)


def users(within: Interval) -> Statement:
    """The end users of a team's usage."""
    return usage.of_users_statement(BUSY, within)


def summed(within: Interval, by: Sequence[usage.Dimension], measures: Sequence[str] = EVERYTHING) -> Statement:
    """Sums of the organization."""
    return usage.sums_statement(ITS_TEAMS, within, by=by, measures=measures)


async def answered(servers: Servers, url: str, wanted: Sequence[Read]) -> list[list[float]]:
    """Milliseconds of every read through the api, in this process and without a socket."""
    key = uuid4().hex
    settings = Settings(
        database_url=url,
        redis_url=servers.valkey.url(),
        admin_key=SecretStr(key),
        encryption_key=SecretStr("ZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWU="),
        request_log=False,
    )
    async with open_runtime(settings, name="bench") as rt:
        app = create_app(rt)
        transport = httpx.ASGITransport(app)
        headers = {"X-Admin-Key": key}
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://bench/api", headers=headers) as client,
        ):
            return [await timed(client, read.path) for read in wanted]


async def timed(client: httpx.AsyncClient, path: str) -> list[float]:
    """Milliseconds of each round; the first is for the caches."""
    found = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        (await client.get(path)).raise_for_status()
        found.append((time.perf_counter() - started) * 1000)
    return found[1:]


def asked(connection: psycopg.Connection[Any], statements: Sequence[Statement]) -> float:
    """Milliseconds of a read's statements together, the median round."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for sql, params in statements:
            connection.execute(sql.encode(), params).fetchall()
        rounds.append((time.perf_counter() - started) * 1000)
    return percentile(rounds, 50)


def main(argv: Sequence[str] | None = None) -> int:
    """Fill, measure, print; the exit code says with --check whether every read kept its goal."""
    parser = argparse.ArgumentParser(prog="bench.reading", description="Lists and usage reports over many calls.")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--check", action="store_true", help="end with 1 when the median misses a goal")
    options = parser.parse_args(argv)
    calls = options.calls
    loaded, started = machine.load_average(), time.monotonic()
    with running_servers() as servers:
        url = servers.create_database()
        with psycopg.connect(url, autocommit=True) as connection:
            fill(connection, calls=calls)
        filled_s = time.monotonic() - started
        with psycopg.connect(url, autocommit=True, options=session_options()) as connection:
            connection.execute(FAST_INDEXES.replace("local ", ""))
            [(jobs,)] = connection.execute("select count(*) from jobs").fetchall()
            wanted = reads(jobs)
            statements = [asked(connection, read.statements) for read in wanted]
        times = asyncio.run(answered(servers, url, wanted))
    print(f"Reading {calls:,} calls in {jobs:,} jobs of {TEAMS} teams, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(f"  {os.cpu_count()} cores, load before {loaded}, filled in {filled_s:.0f} s, {ROUNDS} rounds each\n")
    print(told(wanted, times, statements))
    judged = [goal(read.path).of(*each) for read, each in zip(wanted, times, strict=True)]
    print(f"\n  {sum(each.is_met for each in judged)} of {len(judged)} keep the goal of {GOAL_MS} ms at the median")
    return goals.exit_code(judged) if options.check else 0


def goal(path: str) -> Goal:
    """Of a read."""
    return Goal(what=f"GET /api{path}", unit="ms", bound=GOAL_MS, source="reading")


def told(wanted: Sequence[Read], times: Sequence[Sequence[float]], statements: Sequence[float]) -> str:
    """One line per read."""
    rows = [
        [
            read.path,
            *(f"{ms:.1f}" for ms in (min(each), *(percentile(each, n) for n in (50, 95)), asked_ms)),
            f"{GOAL_MS}",
        ]
        for read, each, asked_ms in zip(wanted, times, statements, strict=True)
    ]
    return table(["GET /api…", "best ms", "p50 ms", "p95 ms", "statements ms", "goal"], rows, left=1)


if __name__ == "__main__":
    raise SystemExit(main())
