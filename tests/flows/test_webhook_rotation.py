"""A receiver changes its key without missing an event: new and old sign until the grace ends, then the new alone."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from shared.settings import LOOPBACK
from tests.api.admin import made
from tests.scene import Scene, Team
from tests.workers.delivering import send
from tests.workers.receiver import Received, Receiver, receiving
from workers.webhook_http import WebhookSender

GRACE_S = 600


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


async def registered(team: Team, url: str, signing: str) -> dict[str, Any]:
    body = {"team_id": team.id, "webhook_url": url, "events": ["job.created"], "signing": signing}
    return made(await team.post("/webhooks", body))


async def told(team: Team, receiver: Receiver, after_s: float = 0, **callback: Any) -> Received:
    """What the receiver gets of a new job when the database's clock is so much later."""
    job = await team.job(**callback)
    [queue] = await team.scene.rows("select queue_id as id from deliveries where job_id = :j", j=UUID(job["job_id"]))
    sender = WebhookSender(LOOPBACK, http=True)
    async with team.scene.later(after_s) as rt:
        assert len(await send(rt, sender, queue.id)) == 1
    await sender.close()
    return receiver.received[-1]


def accepts(secret: str, request: Received) -> bool:
    try:
        Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return False
    return True


def accepts_v1a(public: str, request: Received) -> bool:
    """Whether one of the v1a signatures is right."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    return any(_is_by(key, part.removeprefix("v1a,"), signed) for part in signatures(request.headers, "v1a"))


def _is_by(key: Ed25519PublicKey, signature: str, signed: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature), signed)
    except InvalidSignature:
        return False
    return True


def signatures(headers: Mapping[str, str], scheme: str) -> list[str]:
    return [part for part in headers["webhook-signature"].split(" ") if part.startswith(f"{scheme},")]


async def rotated(team: Team, endpoint: Mapping[str, Any], **body: Any) -> dict[str, Any]:
    return made(await team.post(f"/webhooks/{endpoint['webhook_id']}/rotate-secret", body))


async def test_new_and_old_keys_sign_until_the_grace_ends(team: Team, receiver: Receiver):
    old = await registered(team, receiver.url(), "both")
    new = await rotated(team, old, grace_s=GRACE_S)

    inside = await told(team, receiver, GRACE_S - 30)
    for known in (old, new):
        assert accepts(known["secret"], inside)
        assert accepts_v1a(known["public_key"], inside)

    after = await told(team, receiver, GRACE_S + 1)
    assert accepts(new["secret"], after)
    assert accepts_v1a(new["public_key"], after)
    assert not accepts(old["secret"], after)
    assert not accepts_v1a(old["public_key"], after)


async def test_a_rotation_without_grace_and_a_revoked_key_end_at_once(team: Team, receiver: Receiver):
    old = await registered(team, receiver.url(), "v1")
    new = await rotated(team, old, grace_s=0)
    request = await told(team, receiver)
    assert (accepts(new["secret"], request), accepts(old["secret"], request)) == (True, False)

    newest = await rotated(team, old)
    path = f"/webhooks/{old['webhook_id']}/secrets"
    made(await team.send("DELETE", f"{path}/{made(await team.get(path))['secrets'][0]['key_id']}"))
    request = await told(team, receiver)
    assert (accepts(newest["secret"], request), accepts(new["secret"], request)) == (False, True)


@pytest.mark.parametrize(("signing", "signed_with"), [("v1", ["v1"]), ("v1a", ["v1a"]), ("both", ["v1", "v1a"])])
async def test_an_endpoint_chooses_what_signs(team: Team, receiver: Receiver, signing: str, signed_with: list[str]):
    endpoint = await registered(team, receiver.url(), signing)
    request = await told(team, receiver)
    assert [part.partition(",")[0] for part in request.headers["webhook-signature"].split(" ")] == signed_with
    assert accepts(endpoint["secret"], request) == ("v1" in signed_with)
    if "v1a" in signed_with:
        assert accepts_v1a(endpoint["public_key"], request)


async def test_a_callback_is_signed_with_both_keys_of_its_team_in_the_grace(team: Team, receiver: Receiver):
    callback = {"callback_url": receiver.url(), "callback_events": ["job.created"]}
    first = made(await team.post("/webhooks/callback-secret/rotate"))["secret"]
    second = made(await team.post("/webhooks/callback-secret/rotate", {"grace_s": GRACE_S}))["secret"]

    inside = await told(team, receiver, GRACE_S - 30, **callback)
    assert (accepts(first, inside), accepts(second, inside)) == (True, True)
    after = await told(team, receiver, GRACE_S + 1, **callback)
    assert (accepts(first, after), accepts(second, after)) == (False, True)
