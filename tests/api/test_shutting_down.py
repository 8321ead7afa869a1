"""A process that ends says so before it takes no more connections."""

import asyncio

import httpx
import uvicorn

from api.app import create_app
from api.main import PatientServer
from shared.runtime import Runtime
from tests.waiting import until

DELAY_S = 0.5


async def test_a_balancer_hears_that_a_process_ends_on_a_connection_of_its_own(runtime: Runtime):
    app = create_app(runtime)
    server = PatientServer(uvicorn.Config(app, port=0, log_config=None, ws="none"), app, delay_s=DELAY_S)
    serving = asyncio.create_task(server.serve())

    async def port() -> int | None:
        return server.servers[0].sockets[0].getsockname()[1] if server.started else None

    url = f"http://127.0.0.1:{await until(port, 'the server')}/health/readiness"

    async with httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0)) as balancer:
        told: list[tuple[int, str]] = []

        async def heard() -> bool:
            found = await balancer.get(url)
            told.append((found.status_code, found.json()["status"]))
            return told[-3:] == [(503, "shutting_down")] * 3

        server.should_exit = True
        await until(heard, "the word that it ends, again and again")
    await serving
