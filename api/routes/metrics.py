"""/metrics: numbers for Prometheus, of this process and of the whole."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from api.desk import Desk
from api.http import endpoint
from api.metric_families import of_process
from api.metrics import Metrics
from api.sessions import CHALLENGE
from api.wire.errors import Error
from api.wire.media import Media
from shared import key_secrets
from shared.errors import Unauthorized
from shared.runtime import Runtime

EXAMPLE = """# HELP waybill_database_up Whether Postgres answers this process.
# TYPE waybill_database_up gauge
waybill_database_up 1.0
"""
TEXT = Media("text/plain", EXAMPLE)
OPEN_METRICS = Media("application/openmetrics-text", f"{EXAMPLE}# EOF\n")


@endpoint("none", answers={200: (TEXT, OPEN_METRICS), 401: Error})
async def read_metrics(rt: Runtime, desk: Desk, request: Request) -> Response:
    """Metrics in the form of Prometheus; what cannot be read within some seconds is left out.

    Where `WAYBILL_METRICS_TOKEN` is set it has to be shown as `Authorization: Bearer`.
    """
    _check(request, rt.settings.metrics_token.get_secret_value())
    read = await desk.readings.now()
    own = of_process(queue_age_s=desk.door.age_s, waiting=desk.waiters.waiting)
    measured: Metrics = request.app.state.metrics
    # Thousands of lines take longer to write than other requests should wait.
    page, media_type = await asyncio.to_thread(measured.page, request.headers.get("accept", ""), [*own, *read])
    return Response(page, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def _check(request: Request, token: str) -> None:
    """Raises Unauthorized."""
    if not token:
        return
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key_secrets.same(shown.strip(), token):
        raise Unauthorized("Invalid metrics token", headers=CHALLENGE)
