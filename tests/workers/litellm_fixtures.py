"""Fixtures of the litellm tests: the demo provider as a process, and litellm imported as the worker does it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.workers.litellm_rig import LIMIT_S, Demo, make
from workers.environment import prepare_environment
from workers.provider import Provider

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    command = [sys.executable, "-m", "cli.demo_provider", "--port", "0", "--control"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1].removesuffix("/v1")
        finally:
            process.kill()


@pytest.fixture
async def demo(demo_url: str) -> AsyncIterator[Demo]:
    async with httpx.AsyncClient(base_url=demo_url, timeout=LIMIT_S + 5) as client:
        await client.post("/_control/reset")
        yield Demo(client, demo_url)


@pytest.fixture(scope="session")
def library() -> Any:
    """litellm, imported once per process and as the worker does it."""
    prepare_environment(1000)
    import workers.litellm_provider

    workers.litellm_provider.warm_up()
    return workers.litellm_provider


@pytest.fixture(scope="module")
async def provider(library: Any) -> AsyncIterator[Provider]:
    made = make(library)
    yield made
    await made.aclose()
