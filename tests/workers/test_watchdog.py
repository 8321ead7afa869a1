"""The watchdog ends a process whose loop or threads have died, and leaves a healthy one alone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from workers.watchdog import EXIT_CODE

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, threading, time
from shared import log
from workers.watchdog import Watchdog

log.configure("INFO", "test")
checks, forever = [], threading.Event()
alive = threading.Thread(target=forever.wait, name="alive", daemon=True)
dead = threading.Thread(target=int, name="dead")
alive.start(); dead.start(); dead.join()

async def main(watched, body):
    loop, checked_twice = asyncio.get_running_loop(), asyncio.Event()

    def threads():
        checks.append(1)
        if len(checks) == 2:
            loop.call_soon_threadsafe(checked_twice.set)
        return watched

    watchdog = Watchdog(loop, 0.5, threads)
    watchdog.start()
    await body(checked_twice)
    watchdog.stop()
    watchdog._thread.join()  # its second check has let the process live

async def healthy(checked_twice):
    await checked_twice.wait()

async def blocked(_):
    time.sleep(60)

asyncio.run(main(%s))
print("outlived its watchdog")
"""


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("[alive], blocked", {"dead_threads": [], "loop_silent_s": 1.0}),
        ("[alive, dead], healthy", {"dead_threads": ["dead"], "loop_silent_s": 0.0}),
    ],
    ids=["blocked loop", "dead thread"],
)
def test_process_whose_loop_or_thread_has_died_is_ended(case: str, said: dict[str, Any]):
    done = run(case)
    assert (done.returncode, EXIT_CODE) == (70, 70), done.stderr
    (line,) = done.stderr.splitlines()
    found = orjson.loads(line)
    assert {name: found[name] for name in said} == said
    assert found["event"] == "watchdog_exit"


def test_healthy_process_is_left_alone():
    done = run("[alive], healthy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "outlived its watchdog\n", "")


def run(case: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM % case]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
