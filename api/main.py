"""The api process.

python -m api.main
"""

import asyncio
import gc
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
    """Answers those who wait before it closes: they get their 202, and the call goes on.

    delay_s: how long it says that it is closing before it takes no more connections.
    """

    def __init__(self, config: uvicorn.Config, app: Starlette, *, delay_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._delay_s = delay_s

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Take no more work, release the waiting requests, then close."""
        desk: Desk | None = getattr(self._app.state, "desk", None)
        if desk is not None:
            await desk.door.close()
            await asyncio.sleep(self._delay_s)
            await desk.waiters.close()
            await desk.log.close()
            await desk.lines.close()
        await super().shutdown(sockets)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with open_runtime(settings, name="waybill-api") as rt:
        app = create_app(rt)
        # What stays for good is not looked through again and again: each time all requests would wait.
        gc.collect()
        gc.freeze()
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
        await PatientServer(config, app, delay_s=settings.close_delay_s).serve()


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
