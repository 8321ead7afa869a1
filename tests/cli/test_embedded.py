"""The embedded servers: started, killed, started again with their data, as root too."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from cli.config import PROJECT
from cli.embedded import BinariesMissing, Postgres, ServerFailed, Valkey
from cli.embedded.account import DROP, NAMESPACE, SETPRIV, Account, works
from cli.embedded.binaries import postgres_bin, valkey_server
from tests.cli.processes import alive, of_home, until

QUICK = {"fsync": "off"}


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "pg" / "data", password="a-password", log=tmp_path / "pg.log", settings=QUICK)
    yield server
    server.kill()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey", log=tmp_path / "valkey.log")
    yield server
    server.kill()


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def test_postgres_keeps_committed_rows_through_kill_and_stop(postgres: Postgres) -> None:
    postgres.start()
    execute(postgres.url(), "CREATE TABLE kept AS SELECT 7 AS x")

    postgres.kill()
    postgres.start()
    execute(postgres.url(), "INSERT INTO kept VALUES (8)")
    postgres.stop()
    postgres.start()

    assert rows(postgres.url(), "SELECT x FROM kept ORDER BY x") == [(7,), (8,)]


def test_the_pid_is_the_postmasters(postgres: Postgres) -> None:
    postgres.start()

    assert (postgres.data_dir / "postmaster.pid").read_text().splitlines()[0] == str(postgres.pid)


def test_postgres_wants_the_password(postgres: Postgres) -> None:
    postgres.start()

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url().replace("a-password", "another"))


def test_a_database_is_made_once(postgres: Postgres) -> None:
    postgres.start()

    url = postgres.create_database("one more")
    assert postgres.create_database("one more") == url

    assert rows(url, "SELECT current_database()") == [("one more",)]


def test_servers_side_by_side(postgres: Postgres, tmp_path: Path) -> None:
    other = Postgres(tmp_path / "other" / "data", password="b", log=tmp_path / "other.log", settings=QUICK)
    postgres.start()
    try:
        other.start()
        assert rows(postgres.url(), "SELECT 1") == rows(other.url(), "SELECT 1") == [(1,)]
    finally:
        other.kill()


def test_a_lock_file_whose_pid_is_another_program_by_now_is_no_hindrance(postgres: Postgres) -> None:
    postgres.start()
    lock = (postgres.data_dir / "postmaster.pid").read_text()
    postgres.kill()
    until(lambda: not alive(postgres.pid), "postgres gone")
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    (postgres.data_dir / "postmaster.pid").write_text(lock.replace(str(postgres.pid), str(other.pid), 1))
    try:
        postgres.start()
        assert rows(postgres.url(), "SELECT 1") == [(1,)]
        assert alive(other.pid)
    finally:
        other.kill()
        other.wait()


def test_a_first_start_that_was_cut_short_is_made_anew(postgres: Postgres) -> None:
    half_made = postgres.data_dir.with_name("data.new")
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("half")

    postgres.start()

    assert rows(postgres.url(), "SELECT 1") == [(1,)]


def test_data_of_another_version_is_refused_by_name(postgres: Postgres) -> None:
    postgres.data_dir.mkdir(parents=True)
    (postgres.data_dir / "PG_VERSION").write_text("9\n")

    with pytest.raises(ServerFailed, match="made by PostgreSQL 9, but"):
        postgres.start()


def test_a_lost_password_is_told(postgres: Postgres) -> None:
    postgres.start()
    postgres.stop()
    postgres.password = "forgotten"

    with pytest.raises(ServerFailed, match="password kept for"):
        postgres.start()

    assert not postgres.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change who it is")
@pytest.mark.parametrize("account", [NAMESPACE, SETPRIV, DROP], ids=["namespace", "setpriv", "drop"])
def test_postgres_runs_for_root_in_each_way_this_machine_has(account: Account) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders let nobody else in
        home = Path(folder)
        home.chmod(0o755)
        if not works(account, postgres_bin() / "postgres", home):
            pytest.skip("not possible on this machine")
        server = Postgres(home / "data", password="p", log=home / "log", settings=QUICK, account=account)
        server.start()
        execute(server.url(), "CREATE TABLE kept AS SELECT 7 AS x")
        server.kill()
        server.start()
        assert rows(server.url(), "SELECT x FROM kept") == [(7,)]
        server.stop()


DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@pytest.mark.skipif(not DEBIAN, reason="no Debian PostgreSQL here")
def test_a_server_named_by_a_setting_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAYBILL_POSTGRES_BIN", str(DEBIAN[-1].parent))
    server = Postgres(tmp_path / "pg" / "data", password="p", log=tmp_path / "log", settings=QUICK)
    try:
        server.start()
        assert "Debian" in str(rows(server.url(), "SELECT version()"))
    finally:
        server.kill()


def test_a_missing_server_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAYBILL_POSTGRES_BIN", str(tmp_path))
    monkeypatch.setenv("WAYBILL_REDIS_SERVER", str(tmp_path / "none"))

    with pytest.raises(BinariesMissing, match="WAYBILL_DATABASE_URL"):
        postgres_bin()
    with pytest.raises(BinariesMissing, match="WAYBILL_REDIS_URL"):
        valkey_server()


def test_valkey_keeps_what_it_was_told_through_kill_and_stop(valkey: Valkey) -> None:
    valkey.start()
    with Redis.from_url(valkey.url()) as redis:
        redis.set("kept", "7")
    valkey.kill()
    valkey.start()
    with Redis.from_url(valkey.url()) as redis:
        redis.set("also", "8")
    valkey.stop()
    valkey.start()

    with Redis.from_url(valkey.url()) as redis:
        assert redis.mget("kept", "also") == [b"7", b"8"]


def test_valkey_refuses_writes_rather_than_forget(valkey: Valkey) -> None:
    valkey.start()

    with Redis.from_url(valkey.url()) as redis:
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


STARTER = """
import json, signal, sys
from pathlib import Path
from cli.embedded import Postgres, Valkey
home = Path(sys.argv[1])
env = {"WAYBILL_HOME": str(home)}
postgres = Postgres(home / "pg" / "data", password="p", log=home / "pg.log", settings={"fsync": "off"}, env=env)
valkey = Valkey(home / "valkey", log=home / "valkey.log", env=env)
postgres.start()
valkey.start()
print(json.dumps([postgres.pid, valkey.pid]), flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_servers_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    with starter.stdout as told:
        pids = json.loads(told.readline())
    assert all(alive(pid) for pid in pids)

    starter.send_signal(signal.SIGKILL)

    starter.wait()
    until(lambda: of_home(tmp_path) == [], "servers and their children gone")
