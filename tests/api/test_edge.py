"""What every response carries: a request id, CORS headers where they are due; and how a bug is shown and logged."""

import subprocess
import sys

import httpx
import orjson
import pytest

from api.app import create_app
from api.http import endpoint
from api.openapi_responses import HEADERS
from shared.runtime import Runtime
from tests.scene import Scene


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/nothing", 404), ("/api/jobs/x", 401), ("/api/credits/add", 405)]
)
async def test_every_response_carries_a_request_id(scene: Scene, path: str, status: int):
    echoed = await scene.client.get(path, headers={"X-Request-ID": "abc-123"})
    assert (echoed.status_code, echoed.headers["x-request-id"]) == (status, "abc-123")
    for unusable in ("", "x" * 129, "a b"):
        made = await scene.client.get(path, headers={"X-Request-ID": unusable})
        assert made.headers["x-request-id"].startswith("req_")


LOG_BOTH = """
import logging, structlog
from shared import log
log.configure("INFO", "api")
with structlog.contextvars.bound_contextvars(request_id="abc-123"):
    log.get("ours").info("one")
    logging.getLogger("uvicorn.error").warning("two")
"""


def test_every_log_line_of_a_request_carries_its_id():
    lines = subprocess.run([sys.executable, "-c", LOG_BOTH], check=True, capture_output=True, text=True).stderr
    assert [orjson.loads(line)["request_id"] for line in lines.splitlines()] == ["abc-123", "abc-123"]


async def test_a_bug_is_a_500_that_says_nothing_and_a_log_line_with_the_request_id(
    runtime: Runtime, capfd: pytest.CaptureFixture[str]
):
    @endpoint("none")
    async def broken() -> None:
        raise RuntimeError("the secret")

    transport = httpx.ASGITransport(create_app(runtime, api=[("GET", "/broken", broken)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://waybill") as client:
        answer = await client.get("/api/broken", headers={"X-Request-ID": "abc-500"})
    assert (answer.status_code, answer.content) == (500, b'{"detail":"Internal Server Error"}')
    assert answer.headers["x-request-id"] == "abc-500"
    logged = "".join(capfd.readouterr())
    assert "internal_error" in logged
    assert "abc-500" in logged


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/jobs/x", "/api/credits/add", "/openapi.json"])
async def test_listed_origins_get_cors_headers_also_on_errors(scene: Scene, path: str):
    listed = await scene.client.get(path, headers={"Origin": "http://localhost:3000"})
    assert listed.headers["access-control-allow-origin"] == "http://localhost:3000"
    other = await scene.client.get(path, headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-credentials" not in listed.headers


async def test_a_browser_may_read_every_header_that_we_document(scene: Scene):
    listed = await scene.client.get("/health", headers={"Origin": "http://localhost:3002"})
    exposed = {name.lower() for name in listed.headers["access-control-expose-headers"].split(", ")}
    assert {name.lower() for name in HEADERS} <= exposed
    assert {"allow", "x-job-id", "x-accel-buffering"} <= exposed


async def test_preflight(scene: Scene):
    asked = {
        "Origin": "http://localhost:3001",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, prefer, idempotency-key",
    }
    answer = await scene.client.options("/api/jobs/create", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, PATCH, DELETE, OPTIONS"
    allowed = {name.lower() for name in answer.headers["access-control-allow-headers"].split(", ")}
    assert {"authorization", "content-type", "x-admin-key", "idempotency-key", "prefer", "if-none-match"} <= allowed
    assert {"last-event-id", "x-request-id", "x-job-id"} <= allowed
    assert answer.headers["x-request-id"]
