"""The whole product on a throw-away home, started with `waybill up` as a user would, and the bare loop beside it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bench.http import Connection
from bench.loop import Timed
from bench.stream_seen import Seen
from cli.config import PROJECT
from cli.home import Home, read_json
from cli.seed import DEMO_GROUP, ORGANIZATION
from cli.spawn import free_port, spawn, tail

READY = b"Waybill is ready."
START_S = 120.0
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
TEAM = "bench"
PLENTY = 1_000_000_000
"""Credits and limits of the bench team: both are checked on every call, and never reached."""


class NotStarted(RuntimeError):
    """`waybill up` ended, or was not ready in time."""


class Stack:
    """`waybill up` with its own Postgres and Valkey; start it from the main thread."""

    def __init__(self) -> None:
        self.home = Home(Path(tempfile.mkdtemp(prefix="waybill-bench-")))
        self.port = free_port()
        self.team_key = ""
        self._log = self.home.path / "up.log"
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What `waybill up` says of itself: URLs and pids."""
        return read_json(self.home.run)

    @property
    def provider_url(self) -> str:
        """The demo provider, as litellm is told it."""
        url: str = read_json(self.home.demo)["provider_url"]
        return url

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of the product, by part."""
        told = self.facts["pids"]
        one = {name: [told[name]] for name in ("postgres", "provider")}
        return {name: told[name] for name in ("api", "worker", "timer")} | one | {"valkey": [told["redis"]]}

    async def start(self, workers: int, batch_workers: int = 0) -> None:
        """Start it and wait until it is ready and all units run; the same home may be started again.

        batch_workers: units of their own for lines of batches; without any, the others do their work too.
        """
        self._log.unlink(missing_ok=True)
        env = _plain_environment() | {
            "WAYBILL_HOME": str(self.home.path),
            "WAYBILL_PORT": str(self.port),
            "WAYBILL_WORKERS": str(workers),
            "WAYBILL_BATCH_WORKERS": str(batch_workers),
        }
        self._up = spawn([sys.executable, "-m", "cli", "up"], env=env, log=self._log, cwd=PROJECT)
        until = time.monotonic() + START_S
        while READY not in self._log.read_bytes() or len(self.pids["worker"]) < workers + batch_workers:
            if self._up.poll() is not None or time.monotonic() > until:
                raise NotStarted(f"`waybill up` did not get ready; the end of {self._log}:\n{tail(self._log)}")
            await asyncio.sleep(0.1)

    async def make_team(self, team_id: str = TEAM, *, weight: int = 1) -> str:
        """A team with limits and credits of its own, so that both are in the measured path; returns its key.

        `connect` speaks for the team that was made first.
        """
        admin = {"X-Admin-Key": read_json(self.home.keys)["admin_key"]}
        terms = {"access_groups": [DEMO_GROUP], "credits_allocated": PLENTY, "rpm_limit": PLENTY, "tpm_limit": PLENTY}
        asked = {"organization_id": ORGANIZATION, "team_id": team_id, "weight": weight, **terms}
        connection = await Connection.open(self.port, admin)
        made = await connection.post_json("/api/teams/create", asked)
        await connection.close()
        key: str = made["virtual_key"]
        self.team_key = self.team_key or key
        return key

    async def connect(self, headers: Mapping[str, str] | None = None) -> Connection:
        """A connection that speaks for the team."""
        return await Connection.open(self.port, {"Authorization": f"Bearer {self.team_key}", **(headers or {})})

    def freeze_work(self) -> None:
        """Stop the worker units and the timer where they are, so that what is accepted stays queued."""
        for pid in (*self.pids["timer"], *self.pids["worker"]):
            os.kill(pid, signal.SIGSTOP)

    async def stop(self) -> None:
        """Ask it to end, as Ctrl-C does, and wait."""
        if self._up is not None:
            self._up.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._up.wait)

    def remove(self) -> None:
        """Kill what still runs (its processes end with it) and remove the home."""
        if self._up is not None:
            self._up.kill()
            self._up.wait()
        _gone(self.home.path)


class BareLoop:
    """The bare litellm loop's process; it ends when its stdin does."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @classmethod
    async def start(cls, provider_url: str) -> "BareLoop":
        """Start it; it needs seconds to import litellm, and answers the first run after that."""
        words = ("-m", "bench.bare", provider_url)
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, *words, stdin=PIPE, stdout=PIPE, cwd=PROJECT, env=_plain_environment(),
                limit=ANSWER_LIMIT_BYTES,
            )
        )  # fmt: skip

    async def run(self, concurrency: int, seconds: float) -> Timed:
        """One run of the loop."""
        return Timed(**await self._told(concurrency=concurrency, seconds=seconds))

    async def stream(self, kind: str, concurrency: int, seconds: float) -> Seen:
        """One run of streams of this kind."""
        return Seen(**await self._told(kind=kind, concurrency=concurrency, seconds=seconds))

    async def _told(self, **wanted: Any) -> dict[str, Any]:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise RuntimeError("the bare loop has no pipes")
        pipe_in.write(json.dumps(wanted).encode() + b"\n")
        line = await pipe_out.readline()
        if not line:
            raise RuntimeError("the bare litellm loop ended; its error is above")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def stop(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


def _plain_environment() -> dict[str, str]:
    """No WAYBILL_* setting, provider key or proxy of the caller's shell: two runs measure the same."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def _gone(folder: Path) -> None:
    """Remove a folder into which a dying process may still write for a moment."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
