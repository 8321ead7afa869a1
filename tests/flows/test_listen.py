"""`waybill listen` beside a running Waybill: a receiver without a public address hears what an endpoint would."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from client.python.waybill_webhooks import verify
from tests.hooks import Hooks
from tests.stack import Stack
from tests.team import Team

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def listening(stack: Stack, team: Team, hooks: Hooks) -> AsyncIterator[str]:
    """The secret that a listener of this team, which is ready, signs with."""
    words = ["-m", "cli", "listen", "--url", stack.api_url, "--forward", hooks.url]
    env = {**os.environ, "WAYBILL_KEY": team.key}
    run = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, env=env, stdout=asyncio.subprocess.PIPE
    )
    assert run.stdout is not None
    try:
        async with asyncio.timeout(30):
            first = (await run.stdout.readline()).decode()
            assert (await run.stdout.readline()).startswith(b"ready")
        yield first.split()[-1]
    finally:
        run.terminate()
        await run.communicate()


async def test_listener_posts_the_same_events_as_the_endpoint_got(stack: Stack) -> None:
    team = await stack.team()
    pushed, pulled = await stack.receiver(), await stack.receiver()
    await team.register(pushed, ["*"])
    async with listening(stack, team, pulled) as pulled.secret:
        job = (await team.job("one", "two"))["job_id"]
        await team.ended(job)
        count = (await stack.sql("select count(*) from events where team_id = %s", team.team_id))[0][0]
        for hooks in (pushed, pulled):
            await hooks.arrived(count)

    by_push = {one.headers["webhook-id"]: one.body for one in pushed.receiver.received}
    by_pull = {one.headers["webhook-id"]: one.body for one in pulled.receiver.received}
    assert by_pull == by_push
    assert len(by_pull) == count >= 4
    for one in pulled.receiver.received:
        assert verify(one.headers, one.body, [pulled.secret]) == json.loads(one.body)
    assert [json.loads(body)["sequence"] for body in by_pull.values()] == list(range(1, count + 1))
