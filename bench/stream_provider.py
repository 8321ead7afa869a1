"""A demo provider of the benchmark's own, which can be told how to stream, and Waybill's name for it."""

import asyncio
import os
import subprocess
import sys

import httpx

from bench.stack import Stack
from bench.stream_question import ALIAS, KINDS, MODEL
from cli.config import PROJECT
from cli.home import read_json
from cli.seed import DEMO_GROUP
from cli.spawn import free_port, spawn

START_S = 20
TRIES = START_S * 10


class Provider:
    """The process; it ends with the benchmark."""

    def __init__(self, stack: Stack) -> None:
        self._port = free_port()
        words = (sys.executable, "-m", "cli.demo_provider", "--control", "--port", str(self._port))
        env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._process: subprocess.Popen[bytes] = spawn(
            words, env=env, log=stack.home.path / "stream-provider.log", cwd=PROJECT
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """As litellm is told it."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def teach(self) -> None:
        """Wait until it listens, and tell it how each kind of stream is answered."""
        transport = httpx.AsyncHTTPTransport(retries=0)
        async with httpx.AsyncClient(base_url=self.url.removesuffix("/v1"), transport=transport) as control:
            for _ in range(TRIES):
                try:
                    await control.get("/health")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
            for kind in KINDS.values():
                (await control.post("/_control/script", json=kind.script())).raise_for_status()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


async def make_alias(stack: Stack, provider_url: str) -> None:
    """Waybill's name for the provider, with prices, so that the cost of a stream is in the measured path."""
    body = {
        "alias": ALIAS,
        "litellm_model": f"openai/{MODEL}",
        "access_groups": [DEMO_GROUP],
        "pricing_input": 30.0,
        "pricing_output": 60.0,
        "api_base": provider_url,
        "api_key": "sk-demo-provider",
    }
    admin = {"X-Admin-Key": read_json(stack.home.keys)["admin_key"]}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.port}", headers=admin) as client:
        (await client.post("/api/model-aliases/create", json=body)).raise_for_status()
