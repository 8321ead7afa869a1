"""Fixtures of the demo provider's tests: one process for a module, one client and a clean desk for a test."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.cli.demo_rig import LIMIT_S, running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running("--control") as (_, url):
        yield url


@pytest.fixture
async def provider(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=url, timeout=LIMIT_S, headers={"authorization": "Bearer sk-demo-1234"}
    ) as client:
        yield client
        await client.post("/_control/reset")
