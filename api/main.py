"""The api process.

python -m api.main
"""

import asyncio

import uvicorn

from api.app import create_app
from shared import log
from shared.runtime import open_runtime
from shared.settings import Settings

KEEP_ALIVE_S = 75
SHUTDOWN_S = 5


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with open_runtime(settings, name="waybill-api") as rt:
        config = uvicorn.Config(
            create_app(rt),
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=4096,
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    """The process; uvloop where it is installed."""
    settings = Settings()
    log.configure(settings.log_level, "api")
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
