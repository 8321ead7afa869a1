"""The worker's parent: what the machine refuses it for a moment ends none of its units."""

import subprocess
import sys
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, sys
from pathlib import Path
from shared import log
from workers.main import Units

log.configure("INFO", "test")
refused = [BlockingIOError("no process to be had")]

def fork():
    if refused:
        raise refused.pop()
    return os.fork()

def run(kind):
    print("serving", kind, flush=True)
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()

units = Units({"calls": 1}, run, Path("/nowhere/pids"), fork)
units.serve()
units.wait(30)
print("ended in good order")
"""


def test_a_parent_who_gets_no_process_and_no_file_goes_on():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["serving calls", "ended in good order"], done.stderr
    said = [orjson.loads(line)["event"] for line in done.stderr.splitlines()]
    assert said[:2] == ["unit_not_started", "unit_pids_not_written"]
