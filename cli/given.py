"""What the environment gives to `waybill up`, refused before anything is started when it cannot be used."""

import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from threading import Thread

from cli.config import Config
from cli.home import Home
from shared.read_settings import BadSetting, settings_of
from shared.servers import check_postgres, check_redis

ANSWER_S = 2.5

Outcome = SimpleQueue[BadSetting | None]


def check_given(config: Config, home: Home, keys: Mapping[str, str]) -> None:
    """Raises BadSetting when a program would refuse its settings, or a server given by URL cannot be used."""
    settings_of(config.product_env(home, keys, config.database_url or "", config.redis_url or ""))
    asked = {}
    if config.database_url:
        asked["WAYBILL_DATABASE_URL"] = _ask(check_postgres, config.database_url)
    if config.redis_url:
        asked["WAYBILL_REDIS_URL"] = _ask(check_redis, config.redis_url)
    deadline = time.monotonic() + ANSWER_S
    for name, outcome in asked.items():
        _raise_problem(name, outcome, deadline)


def _ask(check: Callable[[str], None], url: str) -> Outcome:
    """Both are asked at once, each in a thread that may be left behind: resolving a name has no time limit."""
    outcome: Outcome = SimpleQueue()
    Thread(target=_note, args=(check, url, outcome), daemon=True).start()
    return outcome


def _note(check: Callable[[str], None], url: str, outcome: Outcome) -> None:
    try:
        check(url)
    except BadSetting as error:
        outcome.put(error)
    else:
        outcome.put(None)


def _raise_problem(name: str, outcome: Outcome, deadline: float) -> None:
    try:
        problem = outcome.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise BadSetting(f"{name}: no answer within {ANSWER_S} s") from None
    if problem is not None:
        raise problem
