"""What every response carries: a request id, CORS headers where they are due; and how a bug is shown and logged."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from api.app import create_app
from api.http import endpoint
from api.openapi_responses import HEADERS
from shared.runtime import Runtime
from tests.scene import HELLO, Scene


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
    assert "access-control-allow-credentials" not in listed.headers
    assert "Origin" in listed.headers["vary"]


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/jobs/x", "/api/credits/add", "/openapi.json"])
async def test_other_origins_get_no_cors_header_at_all(scene: Scene, path: str):
    for method in ("GET", "OPTIONS"):
        other = await scene.client.request(method, path, headers={"Origin": "http://evil.example"})
        assert cors_headers(other) == []
        assert "Origin" in other.headers["vary"]


async def test_a_refused_host_is_told_to_a_listed_origin(runtime: Runtime):
    settings = runtime.settings.model_copy(update={"allowed_hosts": ("api.example",)})
    transport = httpx.ASGITransport(create_app(replace(runtime, settings=settings)))
    async with httpx.AsyncClient(transport=transport, base_url="http://waybill") as client:
        answer = await client.get("/health", headers={"Origin": "http://localhost:3000"})
    assert (answer.status_code, answer.headers["x-request-id"][:4]) == (400, "req_")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_a_browser_may_read_every_header_that_we_document(scene: Scene):
    listed = await scene.client.get("/health", headers={"Origin": "http://localhost:3002"})
    exposed = {name.lower() for name in listed.headers["access-control-expose-headers"].split(", ")}
    assert {name.lower() for name in HEADERS} <= exposed
    assert {"allow", "x-job-id", "x-accel-buffering"} <= exposed


async def test_preflight(scene: Scene):
    asked = {
        "Origin": "http://localhost:3001",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, prefer, idempotency-key, range, if-range",
    }
    answer = await scene.client.options("/api/jobs/create", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, PATCH, DELETE, OPTIONS"
    allowed = {name.lower() for name in answer.headers["access-control-allow-headers"].split(", ")}
    assert {"authorization", "content-type", "x-admin-key", "idempotency-key", "prefer", "if-none-match"} <= allowed
    assert {"last-event-id", "x-request-id", "x-job-id"} <= allowed
    assert {"openai-organization", "openai-project", "openai-beta"} <= allowed
    assert answer.headers["x-request-id"]


async def test_a_preflight_of_another_origin_is_refused_in_json_without_a_cors_header(scene: Scene):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await scene.client.options("/api/jobs/create", headers=asked)
    assert (answer.status_code, answer.json()) == (400, {"detail": "Disallowed CORS origin"})
    assert answer.headers["content-type"] == "application/json"
    assert "Origin" in answer.headers["vary"].split(", ")
    assert cors_headers(answer) == []


async def test_a_preflight_for_what_nobody_may_is_refused_in_json(scene: Scene):
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "TRACE",
        "Access-Control-Request-Headers": "x-odd",
    }
    answer = await scene.client.options("/api/jobs/create", headers=asked)
    assert (answer.status_code, answer.json()) == (400, {"detail": "Disallowed CORS method, headers"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["x-request-id"]


def cors_headers(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "path", ["/v1/models/%00", "/api/model-aliases/%00", "/api/jobs/%00", "/api/teams/a%00", "/api/jobs/teams/%00"]
)
async def test_nothing_has_a_nul_in_its_name(scene: Scene, path: str):
    team = await scene.team()
    for caller in (team.key, scene.rt.settings.admin_key.get_secret_value()):
        found = await scene.client.get(path, headers={"Authorization": f"Bearer {caller}"})
        assert found.status_code in (403, 404), found.text


@pytest.mark.parametrize(
    ("fields", "loc", "type_"),
    [
        ({"seed": [1] * 300_001}, ["body"], "value_error.too_many_values"),
        ({"logit_bias": {str(n): "x" for n in range(2000)}}, ["body", "logit_bias"], "value_error"),
        ({"tools": ["x"] * 1000}, ["body", "tools", 0], "dict_type"),
    ],
)
async def test_a_body_of_very_many_faults_is_refused_for_the_first(scene: Scene, fields: Any, loc: Any, type_: Any):
    """Each value is looked at while nobody else is served."""
    team = await scene.team()
    job = await team.job()
    found = await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO, **fields})
    assert found.status_code == 422
    [finding] = found.json()["detail"]
    assert finding["loc"] == loc
    assert finding["type"] == type_


async def test_commas_in_a_long_text_are_no_values(scene: Scene):
    team = await scene.team()
    job = await team.job()
    said = [{"role": "user", "content": "," * 400_000}]
    assert (await team.submit(job["job_id"], messages=said)).status_code == 202
