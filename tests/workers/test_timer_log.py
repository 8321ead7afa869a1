"""The timer's steps: who waits for nobody, and what is said of one that failed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from shared import redis_keys
from shared.db import hot
from tests.scene import Scene
from tests.silent_path import path_to
from workers.timer import CONNECTIONS, Leadership, Step, every, steps


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


async def test_bells_and_the_heartbeat_are_steps_of_their_own(scene: Scene, tmp_path: Path):
    settings = scene.rt.settings.model_copy(update={"heartbeat_file": tmp_path / "alive"})
    does = {step.name: step.work for step in steps(replace(scene.rt, settings=settings))}
    await does["heartbeat"]()
    assert (tmp_path / "alive").exists()

    await scene.rt.redis.delete(redis_keys.epoch())
    await does["lost_bells"]()
    assert await scene.rt.redis.exists(redis_keys.epoch())
    assert "unattended_batches" in does
    assert len(does) + 2 <= CONNECTIONS, "background has two, the other one looks whether it leads"


async def test_a_step_that_loses_its_cancel_ends_all_the_same():
    begun, rounds = asyncio.Event(), 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    running = asyncio.create_task(every(Step("look", 0.0, work)))
    await begun.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert (running.cancelled(), rounds) == (True, 1)


async def test_a_leader_to_whom_the_database_says_nothing_leads_no_longer(database_url: str):
    async with path_to(database_url) as path:
        async with await psycopg.AsyncConnection.connect(path.url, autocommit=True) as connection:
            leadership = Leadership(connection=connection, answer_s=0.2)
            assert await leadership.taken()
            path.fall_silent()
            async with asyncio.timeout(60):
                with pytest.raises(psycopg.OperationalError):
                    await leadership.until_lost()
        assert connection.closed
