"""Providers that fail: their calls, units that ask them, and the rows of their circuits."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from shared import provider_circuits
from shared.calls import Claimed
from shared.db import Database, Tx
from shared.provider_circuits import Target
from shared.runtime import Runtime
from tests import scene as scenes
from tests.api.admin import unique
from tests.scene import Scene, Team, refused
from workers.calls import Calls
from workers.provider import ProviderError

OUTAGE = provider_circuits.OPENS_AFTER
"""Failures in a row that open a circuit."""
OPEN_S = provider_circuits.OPEN_S


async def submitted(team: Team, count: int) -> list[str]:
    """Calls that nobody has claimed yet."""
    job = await team.job(calls=[{"messages": scenes.HELLO}] * count)
    return [call["call_id"] for call in job["calls"]]


async def ends(scene: Scene, call_id: str) -> list[tuple[str, str]]:
    """Its attempts: who was asked, and how it ended."""
    return [(attempt.alias, attempt.outcome) for attempt in await scene.attempts(call_id)]


async def fail(scene: Scene, team: Team, *errors: ProviderError) -> list[str]:
    """So many calls at once are asked once each, and fail like this. They wait to be tried again."""
    calls = await submitted(team, len(errors))
    scene.provider.steps = list(errors)
    await scene.work(calls)
    scene.provider.steps = []
    return calls


async def outage(scene: Scene, team: Team) -> list[str]:
    """The team's first model fails until its circuit opens."""
    return await fail(scene, team, *[refused(http_status=503)] * OUTAGE)


def worker(scene: Scene, rt: Runtime | None = None) -> Calls:
    """Another unit, that knows nothing yet."""
    return Calls(rt or scene.rt, scene.provider, unique("worker"))


async def claimed(unit: Calls, calls: Sequence[str]) -> list[Claimed]:
    return await unit.claim([UUID(id_) for id_ in calls])


async def circuit(scene: Scene, alias: str) -> Any:
    """The row of the alias, or None."""
    found = await scene.rows(
        "select *, extract(epoch from open_until - opened_at) as open_s from provider_circuits where credential = :key",
        key=f"alias {alias}",
    )
    return found[0] if found else None


async def target(scene: Scene, alias: str) -> Target:
    row = await scene.row("select provider, litellm_model from model_aliases where alias = :alias", alias=alias)
    return Target(row.provider, row.litellm_model, f"alias {alias}")


class CountedDatabase(Database):
    """Counts the single statements; claims are among them, closes are not."""

    statements = 0

    @asynccontextmanager
    async def hot_statement(self) -> AsyncIterator[Tx]:
        self.statements += 1
        async with super().hot_statement() as tx:
            yield tx
