"""What is read and deleted of files is found by an index, however many files and batches there are."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared import batches, files
from tests.plans.test_plans import nodes
from tests.servers import Servers

LARGE = {"files", "file_chunks", "batches"}
ROWS = 20_000
TEAM = "team-1"
FILE = UUID(int=7)

FILL = f"""
insert into organizations (id, name) values ('o', 'o');
insert into teams (id, organization_id, callback_secret_sealed)
  select 'team-' || n, 'o', '' from generate_series(0, 199) n;
insert into files (id, team_id, purpose, filename, status, created_at, expires_at)
  select lpad(to_hex(n), 32, '0')::uuid, 'team-' || n % 200, 'batch', 'in.jsonl',
         case when n > 50 then 'processed' else 'uploading' end, now() - make_interval(mins => n % 40000),
         now() + make_interval(mins => 40000 - n) - make_interval(mins => case when n between 20 and 100 then 50000
                                                                                else 0 end)
    from generate_series(1, {ROWS}) n;
insert into file_chunks (file_id, number, bytes) select id, 0, '' from files;
insert into batches (id, team_id, key_id, endpoint, status, dry_run, input_file_id, completion_window, created_at,
                     expires_at, output_file_id)
  select md5('batch' || n)::uuid, 'team-' || n % 200, gen_random_uuid(), 'chat',
         case when n > 100 then 'completed' else 'in_progress' end, n % 1000 = 7, lpad(to_hex(n), 32, '0')::uuid, '24h',
         now() - make_interval(mins => n), now(), gen_random_uuid() from generate_series(1, {ROWS}) n;
"""

LISTED = {"team_id": TEAM, "purpose": None, "after": FILE, "limit": 20}
STATEMENTS: dict[str, tuple[str, Any]] = {
    "files.LIST asc": (files.LISTS["asc"], LISTED),
    "files.LIST desc": (files.LISTS["desc"], LISTED),
    "files.READ": (files.READ, (FILE, TEAM)),
    "files.STORED": (files.STORED, (TEAM,)),
    "files.HIDE": (files.HIDE, ([FILE],)),
    "files.LOCK_OVER": (files.LOCK_OVER, {"unfinished_s": 3600, "limit": 500}),
    "files.DELETE_CHUNKS": (files.DELETE_CHUNKS, {"id": None, "limit": 50}),
    "files.DELETE_HIDDEN": (files.DELETE_HIDDEN, {"id": None, "limit": 500}),
    "batches.DELETE_DRY_RUNS": (batches.DELETE_DRY_RUNS, {"older_than_s": 3600, "limit": 500}),
}


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    url = servers.create_database()
    with psycopg.connect(url, autocommit=True, options="-c jit=off -c max_parallel_workers_per_gather=0") as connection:
        connection.execute(FILL)
        connection.execute("vacuum analyze files, file_chunks, batches")
        yield connection
    servers.drop_database(url)


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_reads_no_table_from_end_to_end(database: psycopg.Connection[Any], name: str):
    sql, params = STATEMENTS[name]
    with database.transaction(force_rollback=True):
        plan = database.execute(f"explain (analyze, format json) {sql}".encode(), params).fetchall()[0][0][0]["Plan"]
    found = list(nodes(plan))
    assert [node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"] == []
    assert sum(node.get("Actual Rows", 0) for node in found if node.get("Relation Name") in LARGE) < ROWS / 20
