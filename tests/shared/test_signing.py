"""Standard Webhooks v1 and v1a: the contract's vector, and what other verifiers accept and refuse of ours."""

import base64
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from shared import signing
from shared.signing import new_webhook_secret

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PRIVATE = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PUBLIC = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
ID = "evt_019aa3c2900070008000000000000001"
BODY = (
    b'{"id":"evt_019aa3c2900070008000000000000001","object":"event","type":"job.completed","event":"job.completed",'
    b'"timestamp":"2026-01-15T12:05:23.000Z","created_at":1768478723,"sequence":4,'
    b'"job_id":"019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f","team_id":"acme-corp","data":{"total_calls":5,"duration_seconds":45}}'
)


def test_contract_vector():
    assert len(BODY) == 302
    assert signing.headers([SECRET, PRIVATE], message_id=ID, timestamp=1768478724, body=BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1768478724",
        "webhook-signature": (
            "v1,ll0Yh/aidz7A/NqPliuqd8/7BBPF8w9qsSOkczAByOY= "
            "v1a,vCdPNWcYtaHC19ztfIdAHryOZuEh9Ubkmczqe2gJ+QkggE9Ofzdu6ohHhBpI0Zdg0U0YrvEc3ueB3PlE6lcGDw=="
        ),
    }
    assert signing.public_key(PRIVATE) == PUBLIC


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


def test_openai_library_accepts_ours_and_refuses_a_changed_body():
    secret = new_webhook_secret()
    receiver = OpenAI(api_key="sk-unused", webhook_secret=secret).webhooks
    headers = now_signed(new_webhook_secret(), secret)

    receiver.verify_signature(BODY, headers)
    with pytest.raises(InvalidWebhookSignatureError):
        receiver.verify_signature(BODY + b" ", headers)


def test_reference_library_takes_the_v1_signature_beside_a_v1a_one():
    secret = new_webhook_secret()
    headers = now_signed(signing.new_private_key(), secret)

    assert [part.partition(",")[0] for part in headers["webhook-signature"].split(" ")] == ["v1a", "v1"]
    assert Webhook(secret).verify(BODY, headers)


def test_a_receiver_with_the_published_key_accepts_v1a_and_refuses_a_changed_body():
    private = signing.new_private_key()
    published = signing.jwk(signing.public_key(private), kid="whk_1")
    assert {name: published[name] for name in ("kty", "crv", "kid", "use", "alg")} == {
        "kty": "OKP", "crv": "Ed25519", "kid": "whk_1", "use": "sig", "alg": "EdDSA",
    }  # fmt: skip
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(published["x"] + "="))
    headers = now_signed(private)
    signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1a,"))
    signed = f"{ID}.{headers['webhook-timestamp']}.".encode() + BODY

    key.verify(signature, signed)
    with pytest.raises(InvalidSignature):
        key.verify(signature, signed + b" ")


@pytest.mark.parametrize(("scheme", "chosen"), [("v1", [SECRET]), ("v1a", [PRIVATE]), ("both", [SECRET, PRIVATE])])
def test_the_scheme_chooses_the_keys_that_sign(scheme: signing.Scheme, chosen: list[str]):
    assert signing.chosen([SECRET, PRIVATE], scheme) == chosen


def test_nothing_is_sent_unsigned():
    with pytest.raises(ValueError, match="no key to sign with"):
        now_signed()


@pytest.mark.parametrize("private", ["whsk_", "whsk_***", f"whsk_{base64.b64encode(bytes(31)).decode()}"])
def test_private_key_of_another_form_is_refused_without_showing_it(private: str):
    with pytest.raises(ValueError, match="must be whsk_") as refused:
        now_signed(private)

    assert str(refused.value) == "must be whsk_ and base64 of 32 bytes"
