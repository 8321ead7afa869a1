"""The app of each test, on the real servers."""

from collections.abc import AsyncIterator

import pytest

from shared.runtime import Runtime
from tests import scene as scenes
from tests.api.admin import Api, opened
from tests.scene import Scene, Team


@pytest.fixture
async def api(runtime: Runtime) -> AsyncIterator[Api]:
    async with opened(runtime) as found:
        yield found


@pytest.fixture
async def scene(runtime: Runtime) -> AsyncIterator[Scene]:
    """The app with its waiters, and a worker that hears its bells at once."""
    async with scenes.opened(runtime) as found:
        found.live = True
        yield found


@pytest.fixture
async def team(scene: Scene) -> Team:
    """One with what a team has by default; files whose tests need another make their own."""
    return await scene.team()
