"""A whole Waybill in one process; nothing runs until the test says so."""

from collections.abc import AsyncIterator

import pytest

from shared.runtime import Runtime
from tests import scene as scenes
from tests.scene import Scene


@pytest.fixture
async def scene(runtime: Runtime) -> AsyncIterator[Scene]:
    async with scenes.opened(runtime) as found:
        yield found
