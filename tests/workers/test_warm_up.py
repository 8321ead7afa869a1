"""The parent's warm-up: what a unit's first call would import is there before the fork, and nothing else is left."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys, threading
from workers.environment import prepare_environment
prepare_environment(10)
from workers.litellm_provider import check_library, warm_up
before = set(sys.modules)
warm_up()
check_library()
assert len(set(sys.modules) - before) > 20, "litellm imports nothing late any more: drop the warm-up"
assert threading.active_count() == 1, threading.enumerate()
"""


def test_warm_up_imports_what_the_first_call_needs_and_leaves_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
