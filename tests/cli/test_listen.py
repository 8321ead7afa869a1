"""`waybill listen`: every event reaches the local URL, signed and in order, whatever stops in between."""

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from cli import listen
from cli.listen import local_url
from cli.listener import CannotListen, Listener
from shared.signing import new_webhook_secret
from tests.scene import Scene, Team
from tests.workers.receiver import Receiver, receiving, response

SECRET = new_webhook_secret()
ROOT = Path(__file__).resolve().parents[2]


class Listening:
    """A listener on the scene's api, and what it said, moved to and waited for."""

    def __init__(self, team: Team, receiver: Receiver, transport: httpx.AsyncBaseTransport, **given: Any) -> None:
        self.lines: list[str] = []
        self.cursors: list[str] = []
        self.pauses: list[float] = []
        self.before_pause: Callable[[], None] = lambda: None
        key = {"Authorization": f"Bearer {given.pop('key', team.key)}"}
        self.listener = Listener(
            api=httpx.AsyncClient(transport=transport, base_url="http://waybill", headers=key),
            local=httpx.AsyncClient(trust_env=False),
            url=receiver.url(),
            secret=SECRET,
            say=self.lines.append,
            moved=self.cursors.append,
            wait_s=0,
            pause=self._pause,
            **given,
        )

    async def _pause(self, seconds: float) -> None:
        self.before_pause()
        self.pauses.append(seconds)

    async def __aenter__(self) -> "Listening":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.api.aclose()
        await self.listener.local.aclose()


def listening(scene: Scene, team: Team, receiver: Receiver, **given: Any) -> Listening:
    return Listening(team, receiver, given.pop("transport", httpx.ASGITransport(scene.app)), **given)


async def bodies(scene: Scene, team: Team) -> list[bytes]:
    """The team's log."""
    rows = await scene.rows("select body from events where team_id = :id order by seq", id=team.id)
    return [row.body.encode() for row in rows]


async def ended_job(team: Team) -> str:
    job_id: str = (await team.job())["job_id"]
    assert (await team.complete(job_id)).status_code == 200
    return job_id


async def test_what_happens_from_now_on_is_posted_in_order_signed_and_as_it_is_kept(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    old = await bodies(scene, team)
    async with receiving() as receiver, listening(scene, team, receiver) as run:
        await run.listener.skip()
        await ended_job(team)
        await run.listener.step()

    new = (await bodies(scene, team))[len(old) :]
    assert [one.body for one in receiver.received] == new != []
    for one in receiver.received:
        event = Webhook(SECRET).verify(one.body, one.headers)
        assert (one.headers["webhook-id"], one.headers["waybill-attempt"]) == (event["id"], "1")
        assert one.headers["content-type"] == "application/json"
    assert [line.split()[1:5] for line in run.lines] == [
        [event["type"], event["id"], "->", "200"] for event in map(json.loads, new)
    ]
    assert run.listener.cursor == json.loads(new[-1])["id"]


async def test_event_is_posted_until_it_is_taken_and_the_cursor_waits_for_it(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    expected = [json.loads(body)["id"] for body in await bodies(scene, team)]
    answers = response(500), response(302), response(200)
    async with receiving(*answers) as receiver, listening(scene, team, receiver) as run:
        run.before_pause = lambda: run.cursors.append("-")
        await run.listener.step()

    assert [one.headers["webhook-id"] for one in receiver.received] == [*expected[:1] * 2, *expected]
    assert [one.headers["waybill-attempt"] for one in receiver.received[:3]] == ["1", "2", "3"]
    assert (run.pauses, run.cursors) == ([1.0, 2.0], ["-", "-", *expected])
    assert run.lines[0].endswith("ms, again in 1 s")


async def test_nothing_is_lost_while_nobody_listens_at_the_url(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    async with receiving() as receiver, listening(scene, team, receiver) as run:
        there, run.listener.url = run.listener.url, "http://127.0.0.1:1/"

        def start() -> None:
            run.listener.url = there

        run.before_pause = start
        await run.listener.step()

    assert [one.body for one in receiver.received] == await bodies(scene, team)
    assert run.lines[0].endswith("-> no connection, again in 1 s")


async def test_keep_going_passes_over_what_is_not_taken(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    async with (
        receiving(response(500), response(200)) as receiver,
        listening(scene, team, receiver, keep_going=True) as run,
    ):
        await run.listener.step()

    assert [one.body for one in receiver.received] == await bodies(scene, team)
    assert run.lines[0].endswith("passed over")
    assert run.pauses == []


async def test_receiver_can_refuse_a_message_for_good(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    refusal = response(400, webhook_delivery="abort-message")
    async with receiving(refusal) as receiver, listening(scene, team, receiver) as run:
        await run.listener.step()

    assert [one.body for one in receiver.received] == await bodies(scene, team)


async def test_only_the_types_asked_for_are_posted(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    async with receiving() as receiver, listening(scene, team, receiver, types=["job.completed"]) as run:
        await run.listener.step()

    assert [json.loads(one.body)["type"] for one in receiver.received] == ["job.completed"]


class Away(httpx.ASGITransport):
    """The api behind a network that fails as the test says, then works."""

    def __init__(self, app: Any, *failures: Exception | httpx.Response) -> None:
        super().__init__(app)
        self.failures = list(failures)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self.failures:
            return await super().handle_async_request(request)
        failure = self.failures.pop(0)
        if isinstance(failure, Exception):
            raise failure
        return failure


async def test_api_that_is_away_is_waited_for(scene: Scene):
    team = await scene.team()
    await ended_job(team)
    failures = (
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        httpx.Response(503, headers={"retry-after": "7"}),
        httpx.Response(200, text="<html>starting</html>"),
        httpx.Response(429),
    )
    away = Away(scene.app, *failures)
    async with receiving() as receiver, listening(scene, team, receiver, transport=away) as run:
        await run.listener.step()

    assert [one.body for one in receiver.received] == await bodies(scene, team)
    assert run.pauses == [1.0, 2.0, 7.0, 10.0, 30.0]
    assert run.lines[:2] == ["the api is away (no connection); asking again until it is back", "the api is back"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"key": "sk-wrong"}, "the api answered 401: "),
        ({"cursor": "evt_nonsense"}, "the api answered 400: Invalid cursor"),
        ({"types": ["job.exploded"]}, "the api answered 400: Unknown event type: job.exploded"),
    ],
)
async def test_what_will_never_work_is_said_and_ends(scene: Scene, given: dict[str, Any], reason: str):
    team = await scene.team()
    async with receiving() as receiver, listening(scene, team, receiver, **given) as run:
        with pytest.raises(CannotListen, match=f"^{reason}"):
            await run.listener.step()

    assert run.pauses == []


async def test_ready_is_said_when_the_api_has_answered(scene: Scene, capsys: pytest.CaptureFixture[str]):
    team = await scene.team()
    async with receiving() as receiver, listening(scene, team, receiver, cursor="evt_nonsense") as run:
        with pytest.raises(CannotListen):
            await listen._work(run.listener)

    assert "ready (Ctrl-C stops)" not in capsys.readouterr().out


async def test_an_admins_key_names_no_team(scene: Scene):
    admin, team = scene.api.admin["X-Admin-Key"], await scene.team()
    async with receiving() as receiver, listening(scene, team, receiver, key=admin) as run:
        said = "the api answered 422: query.team_id: field required; listen with a team's virtual key"
        with pytest.raises(CannotListen, match=f"^{said}$"):
            await run.listener.look()


async def test_api_that_does_not_hold_requests_is_not_asked_without_a_pause(scene: Scene):
    team = await scene.team()
    async with receiving() as receiver, listening(scene, team, receiver) as run:
        await run.listener.skip()
        await run.listener.step()

    assert run.pauses == [1.0]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("3000", "http://localhost:3000/"),
        ("localhost:3000/hook", "http://localhost:3000/hook"),
        ("3000/hook", "http://localhost:3000/hook"),
        ("https://dev.example.test/hook", "https://dev.example.test/hook"),
    ],
)
def test_url_to_forward_to_may_be_short(text: str, url: str):
    assert local_url(text) == url


@pytest.mark.parametrize("text", ["ftp://x/", "http://", "localhost:port/", "http://[::1", "http://9999/r", "0/r"])
def test_what_is_no_url_is_refused(text: str):
    with pytest.raises(ArgumentTypeError):
        local_url(text)


class Both(BaseHTTPRequestHandler):
    """An api whose log has evt_2 behind evt_1, and the receiver, in one."""

    asked: list[str]
    posted: Event
    authorized: list[str | None]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.authorized.append(self.headers["authorization"])
        events = [{"id": "evt_2", "type": "job.completed"}] if "after=evt_1" in self.path else []
        if not events:
            Event().wait(0.2)
        page = {"events": events, "next_after": "evt_2", "has_more": False}
        self._answer(json.dumps(page).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(b"")
        self.posted.set()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None: ...


def test_run_ends_at_ctrl_c_and_the_next_one_goes_on_behind_it(tmp_path: Path):
    handler = type("Handler", (Both,), {"asked": [], "posted": Event(), "authorized": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url, resume = f"http://127.0.0.1:{server.server_port}", tmp_path / "cursor"
    resume.write_text("evt_1\n")
    command = [sys.executable, "-m", "cli", "listen", "--url", url, "--forward", f"{url}/hook", "--resume", str(resume)]
    run = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "WAYBILL_KEY": "sk-1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        posted = handler.posted.wait(30)
        while posted and resume.read_text() != "evt_2\n":
            Event().wait(0.02)
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=30)[0].decode()
    finally:
        run.kill()
        server.shutdown()
        server.server_close()

    assert run.returncode == 0, said
    lines = said.splitlines()
    assert lines[0].startswith(f"forwarding {url} to {url}/hook, signed with whsec_")
    assert lines[1] == "ready (Ctrl-C stops)"
    assert "evt_2  -> 200 in " in lines[2]
    assert lines[-1] == "stopped; go on with --after evt_2"
    assert "Traceback" not in said
    assert handler.authorized[0] == "Bearer sk-1"
