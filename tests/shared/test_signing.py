"""Standard Webhooks v1: the contract's vector, and what the reference library accepts and refuses of ours."""

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from shared import signing
from shared.credentials import new_webhook_secret

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ID = "evt_019aa3c2900070008000000000000001"
BODY = (
    b'{"id":"evt_019aa3c2900070008000000000000001","object":"event","type":"job.completed","event":"job.completed",'
    b'"timestamp":"2026-01-15T12:05:23.000Z","created_at":1768478723,"sequence":4,'
    b'"job_id":"019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f","team_id":"acme-corp","data":{"total_calls":5,"duration_seconds":45}}'
)


def test_contract_vector():
    assert len(BODY) == 302
    assert signing.headers([SECRET], message_id=ID, timestamp=1768478724, body=BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1768478724",
        "webhook-signature": "v1,ll0Yh/aidz7A/NqPliuqd8/7BBPF8w9qsSOkczAByOY=",
    }


def now_signed(*secrets: str, at: int | None = None) -> dict[str, str]:
    return signing.headers(secrets, message_id=ID, timestamp=int(time.time()) if at is None else at, body=BODY)


def test_reference_library_accepts_ours():
    secret = new_webhook_secret()

    assert Webhook(secret).verify(BODY, now_signed(secret))["id"] == ID


def test_reference_library_accepts_either_secret_during_a_rotation():
    old, new = new_webhook_secret(), new_webhook_secret()
    headers = now_signed(new, old)

    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize("what", ["body", "secret", "old", "id", "missing"])
def test_reference_library_refuses_what_was_tampered_with(what: str):
    secret = new_webhook_secret()
    headers = now_signed(secret, at=int(time.time()) - 400 if what == "old" else None)
    if what == "id":
        headers["webhook-id"] = "evt_other"
    if what == "missing":
        del headers["webhook-timestamp"]
    verifier = Webhook(new_webhook_secret() if what == "secret" else secret)

    with pytest.raises(WebhookVerificationError):
        verifier.verify(BODY + b" " if what == "body" else BODY, headers)


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_***", base64.b64encode(bytes(32)).decode(), f"whsec_{base64.b64encode(bytes(23)).decode()}",
     f"whsec_{base64.b64encode(bytes(65)).decode()}", "whsec_ä"],
)  # fmt: skip
def test_secret_of_another_form_is_refused_without_showing_it(secret: str):
    with pytest.raises(ValueError, match="must be whsec_ and base64") as refused:
        signing.secret_bytes(secret)

    assert str(refused.value) == "must be whsec_ and base64 of 24 to 64 bytes"


@pytest.mark.parametrize("size", [24, 64])
def test_secret_of_the_shortest_and_longest_form(size: int):
    assert signing.secret_bytes("whsec_" + base64.b64encode(bytes(size)).decode()) == bytes(size)
