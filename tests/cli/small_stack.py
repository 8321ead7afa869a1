"""`waybill up` with the smallest programs that keep its rules: each says it is ready, waits, and ends when asked."""

import json
import os
import signal
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: Any) -> None: ...


def api() -> None:
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["WAYBILL_PORT"])), Ready).serve_forever()


def wait() -> NoReturn:
    while True:
        signal.pause()


def worker() -> NoReturn:
    file = Path(os.environ["WAYBILL_WORKER_PIDS_FILE"])
    fresh = file.with_suffix(".fresh")
    fresh.write_text(json.dumps([os.getpid()]))
    fresh.rename(file)
    wait()


def stubborn_worker() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker()


def broken() -> NoReturn:
    sys.exit("the reason is in the log")


ROLES: dict[str, Callable[[], None]] = {
    "api": api,
    "provider": wait,
    "timer": wait,
    "worker": worker,
    "stubborn_worker": stubborn_worker,
    "broken": broken,
    "migrate": lambda: None,
}


def run_up(**other: str) -> int:
    # Only here: the programs themselves start at once without these imports.
    from cli.programs import Programs
    from cli.seed import Demo
    from cli.up import up

    def command(name: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.cli.small_stack", other.get(name, name))

    small = Programs(
        migrate=command("migrate"),
        provider=command("provider"),
        api=command("api"),
        worker=command("worker"),
        timer=command("timer"),
        seed=lambda *_args: Demo("sk-of-the-demo-team", ["gpt-4"], []),
    )
    return up(small)


if __name__ == "__main__":
    if sys.argv[1] == "up":
        sys.exit(run_up(**dict(word.split("=") for word in sys.argv[2:])))
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    ROLES[sys.argv[1]]()
