"""The app of each test, on the real servers."""

from collections.abc import AsyncIterator

import pytest

from shared.runtime import Runtime
from tests.api.admin import Api, opened


@pytest.fixture
async def api(runtime: Runtime) -> AsyncIterator[Api]:
    async with opened(runtime) as found:
        yield found
