"""Every hostile URL is refused where it is registered, changed, submitted, and where it would be sent to."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from shared.egress import Lookup
from shared.runtime import Runtime
from tests import scene as scenes
from tests.hostile_urls import FORMS, HOSTS, NAMES, Zone, resolver
from tests.scene import Team
from tests.workers.receiver import receiving
from workers.webhook_http import Response, WebhookSender

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
METADATA = [host for host, reason in HOSTS.items() if reason == "metadata address"]


@pytest.fixture
async def team(runtime: Runtime) -> AsyncIterator[Team]:
    """A team of a Waybill that opens no network and allows plain http, so that a hole would let a byte through."""
    resolving = replace(runtime, lookup=resolver)
    async with scenes.opened(resolving, webhook_allow_nets=(), webhook_allow_http=True) as scene:
        yield await scene.team()


def corpus(port: int) -> dict[str, str]:
    """Hostile URLs and why each is refused; those that name this machine name a port where somebody listens."""
    hosts = {**HOSTS, **{name: reason for name, (_, reason) in NAMES.items()}}
    at_hosts = {f"http://{host}:{port}/hook": reason for host, reason in hosts.items()}
    forms = {url: reason.replace("must be https", "must be https or http") for url, reason in FORMS.items()}
    del forms["http://example.com/"]
    return at_hosts | forms


async def refusals(team: Team, webhook_id: str, url: str) -> set[str]:
    """What registering the URL, changing an endpoint to it and submitting it as a callback say."""
    registered = await team.post("/webhooks", {"team_id": team.id, "webhook_url": url})
    changed = await team.send("PATCH", f"/webhooks/{webhook_id}", {"webhook_url": url})
    submitted = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test", "callback_url": url})
    assert (registered.status_code, changed.status_code, submitted.status_code) == (400, 400, 422), url
    (problem,) = submitted.json()["detail"]
    assert problem["loc"] == ["body", "callback_url"]
    said = (registered.json()["detail"], changed.json()["detail"], "webhook_url is " + problem["msg"])
    return {text.removeprefix("webhook_url is not allowed: ") for text in said}


async def registered(team: Team, url: str = "https://8.8.8.8/hook") -> str:
    made = await team.post("/webhooks", {"team_id": team.id, "webhook_url": url})
    assert made.status_code == 200, made.text
    webhook_id: str = made.json()["webhook_id"]
    return webhook_id


async def attempt(url: str, *networks: object, lookup: Lookup = resolver) -> Response:
    sender = WebhookSender(networks, http=True, lookup=lookup, tls=TLS)  # type: ignore[arg-type]
    answer = await sender.post(url, {}, b"{}", timeout_s=5)
    await sender.close()
    return answer


async def test_every_hostile_url_is_refused_by_every_door_without_a_byte(team: Team):
    webhook_id = await registered(team)
    async with receiving() as receiver:
        for url, reason in corpus(receiver.port).items():
            assert await refusals(team, webhook_id, url) == {reason}, url
            answer = await attempt(url)
            assert (answer.error_class, answer.error) == ("url_refused", reason), url

        assert receiver.connections == 0
    stored = await team.scene.rows("select url from webhook_endpoints where team_id = :team", team=team.id)
    assert [row.url for row in stored] == ["https://8.8.8.8/hook"]
    assert await team.scene.rows("select 1 from jobs where team_id = :team", team=team.id) == []


async def test_callback_of_a_call_is_held_to_the_same_rules(team: Team):
    job = await team.job()
    for url, reason in {"http://10.0.0.1/": "private address", "http://nat64.example/": "loopback address"}.items():
        refused = await team.submit(job["job_id"], callback_url=url)
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["msg"] == f"not allowed: {reason}"


async def test_listener_of_the_corpus_would_hear_of_a_hole():
    async with receiving() as receiver:
        for host in ("127.1", "loopback.example", "2130706433"):
            assert (await attempt(f"http://{host}:{receiver.port}/hook", *EVERYTHING)).status == 200

        assert receiver.connections == 3


async def test_metadata_is_refused_by_every_door_even_when_every_network_is_open(runtime: Runtime):
    resolving = replace(runtime, lookup=resolver)
    names = [name for name, (_, reason) in NAMES.items() if reason == "metadata address"]
    async with scenes.opened(resolving, webhook_allow_nets=EVERYTHING, webhook_allow_http=True) as scene:
        team = await scene.team()
        webhook_id = await registered(team)
        for host in (*METADATA, *names):
            url = f"http://{host}/latest/meta-data/"
            assert await refusals(team, webhook_id, url) == {"metadata address"}, url
            assert (await attempt(url, *EVERYTHING)).error == "metadata address"


async def test_url_that_turns_hostile_after_it_was_stored_is_refused_at_the_attempt(runtime: Runtime):
    zone = Zone(["8.8.8.8"], ["8.8.8.8"], ["127.0.0.1"])
    async with (
        scenes.opened(replace(runtime, lookup=zone), webhook_allow_nets=(), webhook_allow_http=True) as scene,
        receiving() as receiver,
    ):
        team = await scene.team()
        url = f"http://rebind.example:{receiver.port}/hook"
        await registered(team, url)
        await team.job(callback_url=url)
        assert (await attempt(url, lookup=zone)).error == "loopback address"

        assert receiver.connections == 0


async def test_answer_that_changes_between_check_and_connect_changes_nothing():
    zone = Zone(["127.0.0.1"], ["127.0.0.2"])
    async with receiving() as receiver:
        url = f"http://rebind.example:{receiver.port}/hook"
        answer = await attempt(url, ip_network("127.0.0.1/32"), lookup=zone)

    assert answer.status == 200
    assert zone.asked == ["rebind.example"]
    assert receiver.received[0].headers["host"] == f"rebind.example:{receiver.port}"
