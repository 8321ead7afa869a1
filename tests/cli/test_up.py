"""`waybill up` as its user meets it: what it starts, keeps alive, tells and stops."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from cli.children import Child, Signals
from cli.config import PROJECT
from cli.home import Home, read_json
from cli.spawn import spawn
from cli.supervisor import Supervisor
from tests.cli.processes import alive, environment, of_home, until
from tests.cli.ups import Up

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

Given = dict[str, str]


def test_a_taken_port_is_named_and_nothing_is_started(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        up.port = other.getsockname()[1]

        assert up.start().ended() == 1

    assert f"port {up.port} is already in use" in up.text
    assert "WAYBILL_PORT=" in up.text
    assert not (up.home / "run.json").exists()
    assert not (up.home / "postgres").exists()


def test_a_setting_that_is_no_number_is_named(up: Up) -> None:
    assert up.start(WAYBILL_WORKERS="many").ended() == 1
    assert "WAYBILL_WORKERS must be a whole number" in up.text


def test_a_second_up_on_the_same_home_is_refused(up: Up, elsewhere: Given) -> None:
    up.start(**elsewhere).ready()
    second = Up(up.home)
    second.output = up.home.with_suffix(".second")

    assert second.start(**elsewhere).ended() == 1

    assert f"already runs from {up.home}" in second.text
    assert up.running
    assert alive(up.pid("api"))


def test_urls_replace_the_embedded_servers(up: Up, elsewhere: Given) -> None:
    up.start(**elsewhere).ready()

    assert up.run["database_url"] == elsewhere["WAYBILL_DATABASE_URL"]
    assert up.run["redis_url"] == elsewhere["WAYBILL_REDIS_URL"]
    assert up.run["pids"]["postgres"] is None
    assert up.run["pids"]["redis"] is None
    assert not (up.home / "postgres").exists()


@pytest.mark.parametrize("name", ["api", "worker", "timer", "provider"])
def test_a_program_that_dies_is_started_again(up: Up, name: str, elsewhere: Given) -> None:
    up.start(**elsewhere).ready()
    before = up.pid(name)

    os.kill(before, signal.SIGKILL)

    until(lambda: bool(up.run["pids"][name]) and up.pid(name) != before, f"{name} is back")
    assert alive(up.pid(name))


def test_killed_servers_come_back_with_their_data_where_they_were(up: Up) -> None:
    up.start().ready()
    url, postgres, redis = up.run["database_url"], up.pid("postgres"), up.pid("redis")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS x")

    os.kill(postgres, signal.SIGKILL)
    os.kill(redis, signal.SIGKILL)

    until(lambda: up.run["pids"]["postgres"] not in (None, postgres), "postgres is back")
    until(lambda: up.run["pids"]["redis"] not in (None, redis), "valkey is back")
    until(lambda: answers(url), "postgres answers")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(7,)]


def answers(url: str) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2).close()
        return True
    return False


def test_kill_9_leaves_no_process_and_the_next_start_finds_the_data(up: Up) -> None:
    up.start().ready()
    with psycopg.connect(up.run["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS x")

    up.signal(signal.SIGKILL)

    up.ended()
    until(lambda: of_home(up.home) == [], "all processes gone")
    up.start().ready()
    with psycopg.connect(up.run["database_url"]) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(7,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_ends_with_all_it_started(up: Up, number: int) -> None:
    up.start().ready()

    up.signal(number)

    assert up.ended() == 0
    assert of_home(up.home) == []
    assert not (up.home / "run.json").exists()


def test_a_worker_that_does_not_end_is_killed(up: Up, elsewhere: Given) -> None:
    up.start("worker=stubborn_worker", **elsewhere).ready()

    up.signal(signal.SIGINT)

    assert up.ended() == 0
    assert of_home(up.home) == []


def test_frozen_children_do_not_keep_it_from_stopping(up: Up) -> None:
    up.start().ready()
    for name in ("postgres", "redis", "timer"):
        os.kill(up.pid(name), signal.SIGSTOP)

    up.signal(signal.SIGINT)

    assert up.ended() == 0
    assert of_home(up.home) == []


def test_a_second_ctrl_c_kills_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    said: list[str] = []
    with Signals() as signals:
        supervisor = Supervisor(home, signals, said.append)
        command = [sys.executable, "-m", "tests.cli.small_stack", "stubborn_worker"]
        env = {**os.environ, "WAYBILL_WORKER_PIDS_FILE": str(home.worker_pids)}
        child = Child("worker", lambda: spawn(command, env=env, log=home.log("w"), cwd=PROJECT), home.log("w"))
        supervisor.add(child).start()
        until(home.worker_pids.exists, "the worker ignores SIGTERM")
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

        supervisor.stop_all([child], patience_s=3600)

    assert not child.running


def test_what_the_machine_refuses_for_a_moment_stops_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    said: list[str] = []
    with Signals() as signals:
        supervisor = Supervisor(home, signals, said.append)
        supervisor.facts = {"api_url": "http://here"}
        supervisor.write_run()

        def refused() -> subprocess.Popen[bytes]:
            raise BlockingIOError("no process to be had")

        child = supervisor.add(Child("timer", refused, home.log("timer")))
        child.adopt(subprocess.Popen([sys.executable, "-c", ""], start_new_session=True))
        supervisor.facts["api_url"] = "http://there"
        in_the_way = home.run.with_name("run.json.new")
        in_the_way.mkdir()
        for _ in range(400):
            if len(said) < 3:
                supervisor.tick()
        in_the_way.rmdir()
        supervisor.tick()

    told = {line.split(" (")[0] for line in said}
    assert told == {"run.json cannot be written", "timer ended", "timer could not be started"}
    assert read_json(home.run)["api_url"] == "http://there"


def test_a_program_that_never_stays_ends_it_with_the_reason(up: Up, elsewhere: Given) -> None:
    assert up.start("timer=broken", "worker=migrate", **elsewhere).ended() == 1
    assert "right after its start" in up.text
    assert of_home(up.home) == []


def test_the_reason_of_a_failed_start_is_the_end_of_the_log(up: Up, elsewhere: Given) -> None:
    assert up.start("api=broken", **elsewhere).ended() == 1
    assert "api ended 5 times" in up.text
    assert "the reason is in the log" in up.text


def test_a_database_that_is_current_is_not_migrated(up: Up, elsewhere: Given, fresh_database_url: str) -> None:
    up.start("migrate=broken", **{**elsewhere, "WAYBILL_DATABASE_URL": fresh_database_url}).ready()


def test_a_failed_migration_ends_it_with_the_reason(up: Up, elsewhere: Given) -> None:
    assert up.start("migrate=broken", **elsewhere).ended() == 1
    assert "the migration ended with exit code 1" in up.text
    assert "the reason is in the log" in up.text


def test_files_are_for_their_owner_only(up: Up) -> None:
    up.start().ready()

    files = [up.home / name for name in ("run.json", "keys.json", "ports.json", "lock", "logs/api.log")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(up.home.stat().st_mode) == 0o700


def test_keys_are_made_once_and_told(up: Up, elsewhere: Given) -> None:
    up.start(**elsewhere).ready()
    keys = json.loads((up.home / "keys.json").read_text())
    assert keys["admin_key"] in up.text
    assert "sk-of-the-demo-team" in up.text
    up.signal(signal.SIGINT)
    up.ended()

    up.start(**elsewhere).ready()

    assert json.loads((up.home / "keys.json").read_text()) == keys


def test_only_api_and_worker_know_provider_keys(up: Up, elsewhere: Given) -> None:
    up.start(OPENAI_API_KEY="sk-provider", WAYBILL_ADMIN_KEY="an-admin-key-of-ours", **elsewhere).ready()

    knows = {name: "OPENAI_API_KEY=sk-provider" in environment(up.pid(name)) for name in ("api", "worker", "timer")}
    assert knows == {"api": True, "worker": True, "timer": False}
    provider = environment(up.pid("provider"))
    assert not [line for line in provider if "sk-provider" in line or "an-admin-key-of-ours" in line]
    assert "WAYBILL_ADMIN_KEY=an-admin-key-of-ours" in environment(up.pid("api"))


def test_every_process_can_be_found_by_its_home(up: Up) -> None:
    up.start().ready()

    mine = f"WAYBILL_HOME={up.home}"

    names = ("api", "worker", "timer", "postgres", "redis", "provider")
    assert [name for name in names if mine not in environment(up.pid(name))] == []
