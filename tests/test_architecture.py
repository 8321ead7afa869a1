"""Rules of the code that a machine can hold."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Table

from migrations.__main__ import config
from shared import schema, tables
from shared.states import BatchStatus, CallState, DeliveryState, FileStatus, JobStatus, Outcome

ROOT = Path(__file__).parents[1]
SOURCES = sorted(file for folder in ("api", "workers", "shared") for file in (ROOT / folder).rglob("*.py"))
NETWORK = ("redis", "provider", "sender", "httpx", "client", "egress", "limits", "checked_callback", "sleep")
"""Words of an awaited call that say it waits for another machine, or for time."""


def opens_transaction(block: ast.AsyncWith) -> bool:
    return any("transaction()" in ast.unparse(item.context_expr) for item in block.items)


def awaited_on_network(block: ast.AsyncWith) -> Iterator[str]:
    for node in ast.walk(block):
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call) and not _is_statement(node.value):
            words = ast.unparse(node.value.func).replace("_", ".").split(".")
            if set(words) & set(NETWORK):
                yield ast.unparse(node.value.func)


def _is_statement(call: ast.Call) -> bool:
    """A noun's function, whatever it is called: it is given the open connection."""
    return bool(call.args) and ast.unparse(call.args[0]) == "tx"


def transactions(file: Path) -> list[ast.AsyncWith]:
    tree = ast.parse(file.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.AsyncWith) and opens_transaction(node)]


def test_nothing_waits_for_another_machine_inside_a_transaction():
    waiting = [
        f"{file.relative_to(ROOT)}:{block.lineno} {call}"
        for file in SOURCES
        for block in transactions(file)
        for call in awaited_on_network(block)
    ]
    assert waiting == []


def test_the_walk_sees_transactions_and_what_is_awaited_in_them():
    assert sum(len(transactions(file)) for file in SOURCES) >= 10
    bad = ast.parse(
        "async def f():\n async with rt.db.transaction() as tx:\n  await rt.redis.get(1)\n  await jobs.get(tx)"
    )
    [block] = [node for node in ast.walk(bad) if isinstance(node, ast.AsyncWith)]
    assert list(awaited_on_network(block)) == ["rt.redis.get"]


def test_the_code_asks_for_the_newest_migration():
    found = ScriptDirectory.from_config(config("postgresql://unused/unused")).get_current_head()
    assert found == schema.HEAD


def test_migrations_make_the_tables_of_the_code(fresh_database_url: str):
    command.check(config(fresh_database_url))


@pytest.mark.parametrize(
    ("table", "column", "states"),
    [
        (tables.jobs, "status", JobStatus),
        (tables.calls, "state", CallState),
        (tables.attempts, "outcome", Outcome),
        (tables.deliveries, "state", DeliveryState),
        (tables.batches, "status", BatchStatus),
        (tables.files, "status", FileStatus),
    ],
)
def test_the_database_takes_the_states_of_the_code_and_no_other(table: Table, column: str, states: type):
    checks = [str(c.sqltext) for c in table.constraints if isinstance(c, CheckConstraint)]
    expected = f"{column} in ({', '.join(repr(str(state)) for state in states)})"
    assert expected in checks


def test_only_one_file_imports_litellm():
    importing = [
        file.relative_to(ROOT).as_posix()
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Import) and any(name.name.partition(".")[0] == "litellm" for name in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "litellm")
    ]
    assert set(importing) == {"workers/litellm_provider.py"}
