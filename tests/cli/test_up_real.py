"""`make up` with the real programs on servers given by URL: the curl line answers, and Ctrl-C hands back a cut call."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from cli.config import Config
from cli.embedded import Postgres, Valkey
from cli.home import Home
from cli.supervisor import DRAIN_S, SERVERS_S
from tests.cli.processes import of_home, until
from tests.cli.ups import Up

DEBIAN_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
DEBIAN_REDIS = Path("/usr/bin/redis-server")


class OutsideServers:
    """Postgres and Redis that `waybill up` did not start: Debian's, where this machine has them."""

    def __init__(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as environ:
            if DEBIAN_POSTGRES:
                environ.setenv("WAYBILL_POSTGRES_BIN", str(DEBIAN_POSTGRES[-1].parent))
            if DEBIAN_REDIS.exists():
                environ.setenv("WAYBILL_REDIS_SERVER", str(DEBIAN_REDIS))
            data, quick = folder / "postgres" / "data", {"fsync": "off"}
            self.postgres = Postgres(data, password="p/w@d", log=folder / "pg.log", settings=quick)
            self.redis = Valkey(folder / "redis", log=folder / "redis.log")

    def settings(self, database: str) -> dict[str, str]:
        """The settings that name both; an empty database of this name is made."""
        return {"WAYBILL_DATABASE_URL": self.postgres.create_database(database), "WAYBILL_REDIS_URL": self.redis.url()}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideServers]:
    servers = OutsideServers(tmp_path_factory.mktemp("outside"))
    try:
        servers.postgres.start()
        servers.redis.start()
        yield servers
    finally:
        servers.redis.stop()
        servers.postgres.stop()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "home", real=True)
    yield up
    up.kill()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the printed line is for curl")
def test_the_printed_line_is_answered_and_servers_given_by_url_stay(real: Up, outside: OutsideServers) -> None:
    real.start(**outside.settings("curl")).ready()
    assert (real.run["pids"]["postgres"], real.run["pids"]["redis"]) == (None, None)
    assert all(real.run["pids"][name] for name in ("api", "worker", "timer", "provider"))

    line = next(line.strip() for line in real.text.splitlines() if line.strip().startswith("JOB="))
    answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, timeout=60)

    assert "Paris" in json.loads(answer.stdout)["response"]["content"]
    real.signal(signal.SIGINT)
    assert real.ended() == 0
    assert of_home(real.home) == []
    assert outside.postgres.answers()
    assert outside.redis.answers()


def test_ctrl_c_hands_back_a_call_that_outlives_the_drain(real: Up, outside: OutsideServers) -> None:
    real.start(**outside.settings("cut")).ready()
    os.kill(real.pid("provider"), signal.SIGSTOP)  # the question is sent; no answer comes
    call_id = ask(real)
    url = real.run["database_url"]
    until(lambda: rows(url, "select state from calls where id = %s", call_id) == [("in_progress",)], "the call runs")

    real.signal(signal.SIGINT)

    assert real.ended() == 0
    assert of_home(real.home) == []
    assert rows(url, "select state from calls where id = %s", call_id) == [("pending",)]
    assert rows(url, "select outcome from attempts where call_id = %s", call_id) == [("unknown",)]
    events = [json.loads(line)["event"] for line in (real.home / "logs" / "worker.log").read_text().splitlines()]
    assert "drained" in events


def test_the_drain_of_a_worker_and_all_of_a_stop_fit_into_ten_seconds(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    env = Config.read({}).product_env(home, home.load_keys(), "postgresql://db/waybill", "redis://redis/0")

    assert float(env["WAYBILL_DRAIN_S"]) < DRAIN_S
    assert DRAIN_S + SERVERS_S < 10


def ask(real: Up) -> str:
    key = json.loads((real.home / "demo.json").read_text())["virtual_key"]
    headers = {"Authorization": f"Bearer {key}", "Prefer": "respond-async"}
    with httpx.Client(base_url=real.run["api_url"], headers=headers, trust_env=False, timeout=30) as client:
        job = client.post("/api/jobs/create", json={"team_id": "acme-corp", "job_type": "test"}).raise_for_status()
        question = {"model": "gpt-4", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        call = client.post(f"/api/jobs/{job.json()['job_id']}/llm-call", json=question).raise_for_status()
    return str(call.json()["call_id"])


def rows(url: str, query: str, call_id: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query, (call_id,)).fetchall()
