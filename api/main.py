"""The api process.

python -m api.main
"""

import asyncio
from socket import socket

import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.desk import Desk
from shared import log
from shared.read_settings import read_settings
from shared.runtime import open_runtime
from shared.settings import Settings

KEEP_ALIVE_S = 75
SHUTDOWN_S = 5


class PatientServer(uvicorn.Server):
    """Answers those who wait before it closes: they get their 202, and the call goes on."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Take no more work, release the waiting requests, then close."""
        desk: Desk | None = getattr(self._app.state, "desk", None)
        if desk is not None:
            await desk.door.close()
            await desk.waiters.close()
            await desk.log.close()
            await desk.lines.close()
        await super().shutdown(sockets)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with open_runtime(settings, name="waybill-api") as rt:
        app = create_app(rt)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=4096,
        )
        await PatientServer(config, app).serve()


def main() -> None:
    """The process; uvloop where it is installed."""
    settings = read_settings()
    log.configure(settings.log_level, "api")
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
