"""The real Postgres and Valkey that tests run against: one pair per pytest process, dead when that process is."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from alembic import command
from psycopg import sql

from cli.embedded import Postgres, Valkey
from migrations.__main__ import config

TEMPLATE = "waybill_template"
SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "authentication_timeout": "5s"}
"""A crash of the machine may lose a test's rows; a crash of the server still may not.

No test lives long enough to be vacuumed. Dropping a database waits for whoever is about to log in, and a client that
gave up half-way is that for as long as the server lets it.
"""


@dataclass(frozen=True)
class Servers:
    """Both servers, running; databases are copies of one migrated template."""

    postgres: Postgres
    valkey: Valkey

    def create_database(self) -> str:
        """A migrated database of its own; returns its URL."""
        name = f"test_{uuid4().hex}"
        # Copied as files: two checkpoints of next to nothing cost less than writing all of it to the log.
        self._admin(sql.SQL("create database {} template {} strategy file_copy"), name, TEMPLATE)
        return self.postgres.url(name)

    def drop_database(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        self._admin(sql.SQL("drop database {} with (force)"), url.rsplit("/", 1)[1])

    def _admin(self, statement: sql.SQL, *names: str) -> None:
        with psycopg.connect(self.postgres.url("postgres"), autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement.format(*map(sql.Identifier, names)))


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Start both in a folder of their own and make the template; stop them and remove the folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix="waybill-tests-"))
    postgres = Postgres(folder / "postgres", password=uuid4().hex, log=folder / "postgres.log", settings=SETTINGS)
    valkey = Valkey(folder / "valkey", log=folder / "valkey.log")
    try:
        postgres.start()
        valkey.start()
        _log_in_cheaply(postgres)
        command.upgrade(config(postgres.create_database(TEMPLATE)), "head")
        yield Servers(postgres, valkey)
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _log_in_cheaply(postgres: Postgres) -> None:
    """Hash the password once instead of 4096 times: half of what a connection costs, and tests open thousands."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True, connect_timeout=10) as connection:
        connection.execute("set scram_iterations = 1")
        user, password = sql.Identifier(connection.info.user), sql.Literal(postgres.password)
        connection.execute(sql.SQL("alter role {} password {}").format(user, password))
