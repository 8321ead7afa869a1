"""The programs that `waybill up` runs beside the two servers, and how to start each."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cli.home import Home
from cli.seed import Demo, seed_demo

Command = tuple[str, ...]
Seed = Callable[[str, str, str, Home, Mapping[str, str]], Demo]


@dataclass(frozen=True)
class Programs:
    """Commands, run in the project's folder; `provider` gets `--port N` at its end.

    seed: called with the API's URL, the admin key, the demo provider's URL, the home and the environment.
    """

    migrate: Command = (sys.executable, "-m", "migrations")
    provider: Command = (sys.executable, "-m", "cli", "demo-provider")
    api: Command = (sys.executable, "-m", "api.main")
    worker: Command = (sys.executable, "-m", "workers.main")
    timer: Command = (sys.executable, "-m", "workers.timer")
    seed: Seed = seed_demo
