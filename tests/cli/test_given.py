"""Settings and servers that cannot be used: told in a line, before anything is started, without a password."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.config import PROJECT, Config
from cli.given import check_given
from cli.home import Home
from cli.spawn import free_port
from shared.read_settings import BadSetting
from tests.cli.processes import of_home
from tests.cli.ups import Up

PASSWORD = "hunter2secret"

BAD = [
    ("WAYBILL_DATABASE_URL", "foo", "must be like postgresql://"),
    ("WAYBILL_DATABASE_URL", f"postgresql://waybill:a/{PASSWORD}@db/waybill", "must be like postgresql://"),
    ("WAYBILL_DATABASE_URL", f"postgresql://waybill:12/{PASSWORD}@db/waybill", "must be like postgresql://"),
    ("WAYBILL_DATABASE_URL", f"postgresql://waybill:{PASSWORD}@127.0.0.1:1/waybill", "Connection refused"),
    ("WAYBILL_REDIS_URL", "foo", "must be like redis://"),
    ("WAYBILL_REDIS_URL", f"redis://:12/{PASSWORD}@redis:6379/0", "must be like redis://"),
    ("WAYBILL_REDIS_URL", f"redis://:{PASSWORD}#@redis:6379/0", "must be like redis://"),
    ("WAYBILL_REDIS_URL", f"redis://:{PASSWORD}@127.0.0.1:1/0", "Connection refused"),
    ("WAYBILL_ENV", "foo", "must be 'development' or 'production', not 'foo'"),
    ("WAYBILL_LEASE_S", "-1", "must be greater than 0, not '-1'"),
    ("WAYBILL_DRAIN_S", "soon", "must be a valid number"),
    ("WAYBILL_ENCRYPTION_KEY", PASSWORD, "must be base64 of 32 bytes"),
    ("WAYBILL_LOG_LEVEL", "LOUD", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    ("WAYBILL_PRICE_MAP", "/nowhere", "does not point to a file"),
    ("WAYBILL_PROVIDER_ALLOW_NETS", "lan", "'lan' does not appear to be an IPv4 or IPv6 network"),
]


def refused(folder: Path, **environ: str) -> str:
    home = Home(folder / "home")
    home.prepare()
    with pytest.raises(BadSetting) as caught:
        check_given(Config.read(environ), home, home.load_keys())
    return str(caught.value)


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_the_setting_and_the_reason_are_told_in_a_line_without_a_password(
    tmp_path: Path, name: str, value: str, why: str
) -> None:
    told = refused(tmp_path, **{name: value})

    assert told.startswith(name)
    assert why in told
    assert "\n" not in told
    assert PASSWORD not in told


def test_what_make_up_fills_in_itself_needs_no_setting(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()

    check_given(Config.read({"WAYBILL_ENV": "production", "WAYBILL_LEASE_S": ""}), home, home.load_keys())


def test_a_short_admin_key_in_production_is_told_without_it(tmp_path: Path) -> None:
    told = refused(tmp_path, WAYBILL_ENV="production", WAYBILL_ADMIN_KEY=PASSWORD)

    assert told == "WAYBILL_ADMIN_KEY needs 32 characters or more in production"


def test_servers_that_take_a_connection_and_say_nothing_are_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        database = refused(tmp_path, WAYBILL_DATABASE_URL=f"postgresql://waybill:{PASSWORD}@{address}/waybill")
        redis = refused(tmp_path, WAYBILL_REDIS_URL=f"redis://:{PASSWORD}@{address}/0")

    assert database.startswith("WAYBILL_DATABASE_URL")
    assert redis.startswith("WAYBILL_REDIS_URL")
    assert PASSWORD not in database + redis


@contextmanager
def postgres_that_says_it_is(version: str) -> Iterator[int]:
    """Answers a connection as a server of this version does, and no query."""
    parameter = b"server_version\0" + version.encode() + b"\0"
    hello = b"R" + (8).to_bytes(4, "big") + bytes(4)
    hello += b"S" + (4 + len(parameter)).to_bytes(4, "big") + parameter
    hello += b"Z" + (5).to_bytes(4, "big") + b"I"

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(hello)
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_postgres_that_is_too_old_is_told(tmp_path: Path) -> None:
    with postgres_that_says_it_is("14.9") as port:
        url = f"postgresql://waybill@127.0.0.1:{port}/waybill?sslmode=disable&gssencmode=disable"
        told = refused(tmp_path, WAYBILL_DATABASE_URL=url)

    assert told == "WAYBILL_DATABASE_URL: the server is PostgreSQL 14; 15 or newer is needed"


def test_up_starts_nothing_with_a_server_it_cannot_reach(up: Up) -> None:
    url = f"postgresql://waybill:{PASSWORD}@127.0.0.1:{free_port()}/waybill"

    assert up.start(WAYBILL_DATABASE_URL=url).ended() == 1

    assert up.text.startswith("waybill: WAYBILL_DATABASE_URL: ")
    assert up.text.count("\n") == 1
    assert PASSWORD not in up.text
    assert not (up.home / "run.json").exists()
    assert not list((up.home / "logs").iterdir())
    assert of_home(up.home) == []


def test_a_home_that_cannot_be_made_is_told(up: Up) -> None:
    assert up.start(WAYBILL_HOME="/proc/x").ended() == 1

    assert up.text.startswith("waybill: WAYBILL_HOME: /proc/x cannot be used (")
    assert up.text.count("\n") == 1


def test_each_program_by_itself_ends_with_a_line_and_code_2() -> None:
    env = {
        "WAYBILL_DATABASE_URL": f"mysql://waybill:{PASSWORD}@db/waybill",
        "WAYBILL_REDIS_URL": "redis://redis:6379/0",
    }
    env |= {"WAYBILL_ENCRYPTION_KEY": "A" * 43 + "="}
    modules = ("api.main", "workers.main", "workers.timer", "migrations")
    running = [
        subprocess.Popen([sys.executable, "-m", name], cwd=PROJECT, env=env, stderr=subprocess.PIPE, text=True)
        for name in modules
    ]
    told = [program.communicate(timeout=60)[1] for program in running]

    assert [program.returncode for program in running] == [2, 2, 2, 2]
    for text in told:
        assert text.startswith("waybill: WAYBILL_DATABASE_URL must be like postgresql://")
        assert text.count("\n") == 1
        assert PASSWORD not in text


def test_a_program_without_settings_names_what_it_needs() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "workers.timer"], cwd=PROJECT, env={}, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr == (
        "waybill: WAYBILL_DATABASE_URL and WAYBILL_REDIS_URL and WAYBILL_ENCRYPTION_KEY must be set\n"
    )
