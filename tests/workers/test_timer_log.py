"""What the timer says of a step that failed: which one, and whether the database is down or the step only slow."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from shared.db import hot
from tests.scene import Scene
from workers.timer import Step, every


async def told(work: Callable[[], Awaitable[object]]) -> dict[str, object]:
    """What is logged of a step's first end."""
    ended = asyncio.Event()

    def pause() -> float:
        ended.set()
        return 60

    with capture_logs() as logs:
        running = asyncio.create_task(every(Step("look", pause, work)))
        await ended.wait()
        running.cancel()
        await asyncio.wait({running})
    [found] = logs
    return dict(found)


@pytest.mark.parametrize(
    ("statement", "event", "error"),
    [
        ("select pg_sleep(9)", "timer_step_too_slow", "QueryCanceled"),
        ("select pg_terminate_backend(pg_backend_pid())", "database_down", "AdminShutdown"),
        ("select nothing", "timer_step_failed", None),
    ],
)
async def test_a_step_that_fails_is_named_with_its_reason(scene: Scene, statement: str, event: str, error: str | None):
    async def work() -> None:
        async with scene.rt.db.hot_transaction() as tx:
            await hot(tx, "set local statement_timeout = '20ms'")
            await hot(tx, statement)

    found = await told(work)
    assert (found["event"], found["step"], found.get("error")) == (event, "look", error)
