"""The log line of each request: what it says, what it never says, and that a request's id leads to its call."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import structlog
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.app import create_app
from api.http import endpoint
from api.request_id import RequestId
from shared import log
from shared.runtime import Runtime
from tests import scene as scenes
from tests.scene import HELLO, Scene, refused
from tests.stack import ADMIN_KEY, Stack
from tests.team import Team
from tests.waiting import until

Line = dict[str, Any]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """Everything that is logged meanwhile."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as found:
        yield found


def of(lines: list[Any], request_id: str) -> Line:
    """The one line of a request, without what differs each time."""
    [line] = [line for line in lines if line["event"] == "request" and line["request_id"] == request_id]
    assert line.pop("duration_ms") >= 0
    return {name: value for name, value in line.items() if name not in {"event", "request_id"}}


async def test_a_line_says_the_route_the_status_and_who(scene: Scene, lines: list[Line]):
    team = await scene.team()
    job = (await team.post("/jobs/create", {"team_id": team.id, "job_type": "t"}, X_Request_ID="made")).json()["job_id"]
    await team.get(f"/v1/jobs/{job}", X_Request_ID="read")
    await scene.client.get("/api/teams?limit=1", headers={**scene.api.admin, "X-Request-ID": "admin"})
    info = {"log_level": "info", "status": 200}
    mine = {**info, "team_id": team.id, "job_id": job}
    assert of(lines, "made") == {**mine, "method": "POST", "route": "/api/jobs/create"}
    assert of(lines, "read") == {**mine, "method": "GET", "route": "/api/v1/jobs/{job_id}"}
    assert of(lines, "admin") == {**info, "method": "GET", "route": "/api/teams", "admin": "admin_key"}


async def test_a_request_that_made_a_call_names_it_whether_it_went_well_or_not(scene: Scene, lines: list[Line]):
    team = await scene.team()
    job = (await team.job())["job_id"]
    path, body = f"/jobs/{job}/llm-call", {"messages": HELLO}
    answers = [await team.post(path, body, X_Request_ID="well")]
    scene.provider.steps = [refused("provider_auth", again="no")]
    answers.append(await team.post(path, body, X_Request_ID="badly"))
    answers.append(await team.post(path, body, X_Request_ID="later", Prefer="respond-async"))
    assert [answer.status_code for answer in answers] == [200, 502, 202]
    for request_id, answer in zip(("well", "badly", "later"), answers, strict=True):
        assert of(lines, request_id) == {
            "log_level": "info",
            "method": "POST",
            "route": "/api/jobs/{job_id}/llm-call",
            "status": answer.status_code,
            "team_id": team.id,
            "job_id": job,
            "call_id": answer.headers["x-call-id"],
        }


async def test_nothing_that_a_client_wrote_is_in_a_line(scene: Scene, lines: list[Line]):
    team = await scene.team()
    for n, path in enumerate((f"/jobs/{team.key}", f"/jobs?x={team.key}", f"/{team.key}", f"/models/{team.key}")):
        await team.get(path, X_Request_ID=f"odd-{n}")
    await scene.api.get(f"/jobs/{uuid4()}", key=f"sk-{team.key}")
    assert of(lines, "odd-0")["route"] == "/api/jobs/{job_id}"
    assert of(lines, "odd-2") == {"log_level": "info", "method": "GET", "route": None, "status": 404}
    assert team.key not in repr(lines)
    assert scene.api.admin["X-Admin-Key"] not in repr(lines)


@pytest.mark.parametrize("path", ["/health", "/health/db", "/health/readiness", "/health/liveness"])
async def test_probes_are_logged_at_debug(scene: Scene, lines: list[Line], path: str):
    await scene.client.get(path, headers={"X-Request-ID": "probe"})
    assert of(lines, "probe") == {"log_level": "debug", "method": "GET", "route": path, "status": 200}


async def test_the_lines_can_be_turned_off(runtime: Runtime, lines: list[Line]):
    async with scenes.opened(runtime, request_log=False) as scene:
        answer = await scene.client.get("/api/teams", headers={"X-Request-ID": "quiet"})
    assert answer.headers["x-request-id"] == "quiet"
    assert [line for line in lines if line["event"] == "request"] == []


async def test_what_a_handler_logs_carries_the_id_and_the_next_request_has_its_own(runtime: Runtime, lines: list[Line]):
    @endpoint("none")
    async def talks() -> dict[str, str]:
        await asyncio.sleep(0)
        log.get("ours").info("talked")
        return {}

    transport = httpx.ASGITransport(create_app(runtime, api=[("GET", "/talks", talks)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://waybill") as client:
        names = [f"talk-{n}" for n in range(3)]
        await asyncio.gather(*(client.get("/api/talks", headers={"X-Request-ID": name}) for name in names))
    assert sorted(line["request_id"] for line in lines if line["event"] == "talked") == names
    log.get("ours").info("after")
    assert "request_id" not in lines[-1]


async def ask(app: Any, *messages: Message) -> None:
    """One request to the middleware, from a client that sends these messages and then nothing."""
    waiting = list(messages)
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "GET",
        "path": "/",
        "headers": [(b"x-request-id", b"raw")],
    }

    async def receive() -> Message:
        return waiting.pop(0) if waiting else await asyncio.get_running_loop().create_future()

    async def send(_: Message) -> None:
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await RequestId(app)(scope, receive, send)


async def test_a_client_that_leaves_in_the_middle_of_a_stream_is_a_499(lines: list[Line]):
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "token"

    await ask(StreamingResponse(endless()), {"type": "http.disconnect"})
    assert of(lines, "raw")["status"] == 499


async def test_a_client_that_leaves_after_its_answer_is_not_a_499(lines: list[Line]):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("all")(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    await ask(app, {"type": "http.disconnect"})
    assert of(lines, "raw")["status"] == 200


async def test_a_bug_of_the_outer_layers_is_a_500(lines: list[Line]):
    async def app(_: Scope, __: Receive, ___: Send) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await ask(app)
    assert of(lines, "raw")["status"] == 500


async def test_a_real_api_writes_it_and_knows_who_did_not_wait(stack: Stack):
    team, word = await stack.team(), f"word{uuid4().hex}"
    job = (await team.job())["job_id"]
    patient, gone = uuid4().hex, uuid4().hex
    answer = await team.ask(job, "Hello", headers={"X-Request-ID": patient})
    await stack.provider.hold(word)
    async with a_waiting_client(stack, team, job, word, gone):
        await stack.provider.asked(word, outcome="held")

    stayed = of([await line_of(stack, patient)], patient)
    assert (stayed["status"], stayed["call_id"], stayed["job_id"]) == (200, answer.headers["x-call-id"], job)
    left = await line_of(stack, gone)
    assert (left["status"], left["team_id"], left["process"], left["level"]) == (499, team.team_id, "api", "info")
    assert (await team.client.get(f"/api/jobs/{job}/calls/{left['call_id']}")).status_code == 200
    logged = (stack.folder / "api.log").read_text()
    assert team.key not in logged
    assert ADMIN_KEY not in logged
    await stack.provider.release()


@asynccontextmanager
async def a_waiting_client(stack: Stack, team: Team, job: str, word: str, request_id: str) -> AsyncIterator[None]:
    """Asks for an answer within two seconds; closes the connection at the end."""
    body = orjson.dumps(team.call(word))
    head = (
        f"POST /api/jobs/{job}/llm-call HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {team.key}\r\nPrefer: wait=2\r\n"
        f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", int(stack.env["WAYBILL_PORT"]))
    writer.write(head.encode() + body)
    await writer.drain()
    yield
    writer.close()
    await writer.wait_closed()


async def line_of(stack: Stack, request_id: str) -> Line:
    async def look() -> Line:
        texts = (stack.folder / "api.log").read_text().splitlines()
        found = [orjson.loads(text) for text in texts if request_id in text and '"event":"request"' in text]
        return found[0] if found else {}

    return await until(look, f"the line of {request_id}")


LOG_ODD_VALUES = """
from dataclasses import dataclass, field
from shared import log

@dataclass
class Sealed:
    name: str
    key: str = field(repr=False)

log.configure("INFO", "api")
log.get("ours").info("odd", number=2**70, broken="\\ud800", thing=Sealed("a", "s3cret"))
log.get("ours").info("plain", word="é", thing=Sealed("a", "s3cret"))
"""


def test_any_value_can_be_logged_and_what_hides_itself_stays_hidden():
    run = subprocess.run([sys.executable, "-c", LOG_ODD_VALUES], check=True, capture_output=True, text=True)
    odd, plain = map(orjson.loads, (text.replace("\\ud800", "?") for text in run.stderr.splitlines()))
    assert (odd["broken"], plain["word"]) == ("?", "é")
    assert odd["thing"] == plain["thing"] == "Sealed(name='a')"
