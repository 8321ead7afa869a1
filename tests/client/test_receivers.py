"""What customers check our webhooks with: the helper and the script we give them, and two libraries of others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai.lib._webhooks as openai_webhooks
import pytest
import standardwebhooks.webhooks
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from client.python.waybill_webhooks import MissingHeader, WebhookRefused, WrongSignature, WrongTimestamp, verify
from shared import signing
from shared.settings import LOOPBACK
from shared.signing import new_webhook_secret
from tests.workers.receiver import receiving
from workers.webhook_http import WebhookSender

CLIENT = Path(__file__).resolve().parents[2] / "client"
VECTORS = json.loads((CLIENT / "test-vectors.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in VECTORS["cases"]}
OF_SECRETS = {name: case for name, case in CASES.items() if not case["keys"][0].startswith("whpk_")}
ERRORS = {"header": MissingHeader, "timestamp": WrongTimestamp, "signature": WrongSignature}

Believes = Callable[[Mapping[str, str], bytes, Sequence[str], int], bool]


def helper(headers: Mapping[str, str], body: bytes, keys: Sequence[str], now: int) -> bool:
    try:
        return verify(headers, body, keys, now=now) == json.loads(body)
    except WebhookRefused:
        return False


def script(headers: Mapping[str, str], body: bytes, keys: Sequence[str], now: int) -> bool:
    given = [headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")]
    codes = {
        subprocess.run(
            [CLIENT / "shell" / "verify-webhook.sh", key, *given],
            input=body,
            env={**os.environ, "NOW": str(now)},
            capture_output=True,
            check=False,
        ).returncode
        for key in keys
    }
    assert codes <= {0, 1}
    return 0 in codes


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Believes:
    """The reference library; its clock cannot be given, so it is replaced."""

    def believes(headers: Mapping[str, str], body: bytes, keys: Sequence[str], now: int) -> bool:
        clock = SimpleNamespace(now=lambda tz: datetime.fromtimestamp(now, tz), fromtimestamp=datetime.fromtimestamp)
        monkeypatch.setattr(standardwebhooks.webhooks, "datetime", clock)
        return any(_passes(lambda key=key: Webhook(key).verify(body, dict(headers))) for key in keys)

    return believes


@pytest.fixture
def openai_sdk(monkeypatch: pytest.MonkeyPatch) -> Believes:
    """The openai SDK; its clock cannot be given, so it is replaced."""
    client = OpenAI(api_key="sk-none")

    def believes(headers: Mapping[str, str], body: bytes, keys: Sequence[str], now: int) -> bool:
        monkeypatch.setattr(openai_webhooks, "time", SimpleNamespace(time=lambda: now))
        return any(_passes(lambda key=key: client.webhooks.unwrap(body, headers, secret=key)) for key in keys)

    return believes


def _passes(check: Callable[[], Any]) -> bool:
    try:
        check()
    except (WebhookVerificationError, InvalidWebhookSignatureError, ValueError):
        return False
    return True


def judged(believes: Believes, case: dict[str, Any], keys: Sequence[str] | None = None) -> bool:
    return believes(case["headers"], case["body"].encode(), case["keys"] if keys is None else keys, case["now"])


@pytest.mark.parametrize("name", CASES)
def test_helper_judges_each_vector_right_and_says_what_is_wrong(name: str):
    case = CASES[name]
    if case["error"] is None:
        assert judged(helper, case)
    else:
        with pytest.raises(ERRORS[case["error"]]):
            verify(case["headers"], case["body"].encode(), case["keys"], now=case["now"])


@pytest.mark.parametrize("name", CASES)
def test_script_judges_each_vector_right(name: str):
    assert judged(script, CASES[name]) == (CASES[name]["error"] is None)


def test_script_says_how_it_is_called():
    called = subprocess.run([CLIENT / "shell" / "verify-webhook.sh"], capture_output=True, check=False, text=True)
    said = "usage: verify-webhook.sh KEY ID TIMESTAMP SIGNATURES < body\n"
    assert (called.returncode, called.stderr) == (2, said)


@pytest.mark.parametrize("name", OF_SECRETS)
def test_libraries_of_others_judge_each_vector_of_a_secret_right(name: str, reference: Believes, openai_sdk: Believes):
    case = OF_SECRETS[name]
    secrets = [key for key in case["keys"] if key.startswith("whsec_")]

    assert judged(reference, case, secrets) == (case["error"] is None)
    assert judged(openai_sdk, case, secrets) == (case["error"] is None)


def test_vectors_are_what_our_signer_writes():
    assert signing.public_key(VECTORS["private_key"]) == VECTORS["public_key"]
    for name, keys in {
        "valid v1": ["secret"],
        "valid v1a": ["private_key"],
        "both schemes, receiver has the secret": ["secret", "private_key"],
        "body beyond ASCII": ["secret"],
    }.items():
        case = CASES[name]
        assert case["headers"] == signing.headers(
            [VECTORS[key] for key in keys],
            message_id=case["headers"]["webhook-id"],
            timestamp=int(case["headers"]["webhook-timestamp"]),
            body=case["body"].encode(),
        )


async def test_everybody_believes_what_our_sender_sends(reference: Believes, openai_sdk: Believes):
    secret, private = new_webhook_secret(), signing.new_private_key()
    body, now = CASES["body beyond ASCII"]["body"].encode(), int(time.time())
    sender = WebhookSender(LOOPBACK, http=True)
    async with receiving() as receiver:
        headers = signing.headers([secret, private], message_id=json.loads(body)["id"], timestamp=now, body=body)
        assert (await sender.post(receiver.url(), headers, body, timeout_s=5)).status == 200
    await sender.close()

    (came,) = receiver.received
    for believes in (helper, script, reference, openai_sdk):
        assert believes(came.headers, came.body, [secret], now)
        assert not believes(came.headers, came.body + b" ", [secret], now)
        assert not believes(came.headers, came.body, [new_webhook_secret()], now)
    for believes in (helper, script):
        assert believes(came.headers, came.body, [signing.public_key(private)], now)


def test_helper_takes_header_names_in_any_case_and_one_key_as_text():
    case = CASES["valid v1"]
    headers = {name.title(): value for name, value in case["headers"].items()}

    assert verify(headers, case["body"].encode(), VECTORS["secret"], now=case["now"])["type"] == "job.completed"


def test_helper_uses_this_machines_clock():
    case = CASES["valid v1"]

    with pytest.raises(WrongTimestamp, match=r"^signed \d+ s ago$"):
        verify(case["headers"], case["body"].encode(), case["keys"])


@pytest.mark.parametrize("key", ["", "secret", "whsec_", "whsec_AAAA", "whsec_not base64!", "whpk_AAAA", "whsk_AAAA"])
def test_helper_says_that_a_key_has_another_form_and_does_not_show_it(key: str):
    case = CASES["valid v1"]

    with pytest.raises(ValueError, match="is wh") as refused:
        verify(case["headers"], case["body"].encode(), [key], now=case["now"])
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize("keys", [[], ()])
def test_helper_wants_a_key(keys: Sequence[str]):
    with pytest.raises(ValueError, match="at least one key"):
        verify(CASES["valid v1"]["headers"], b"{}", keys)


def test_helper_wants_the_raw_body():
    with pytest.raises(TypeError, match="raw bytes"):
        verify(CASES["valid v1"]["headers"], CASES["valid v1"]["body"], [VECTORS["secret"]])


def test_helper_needs_only_the_standard_library_for_secrets():
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from waybill_webhooks import verify\n"
        "case = json.load(sys.stdin)\n"
        "print(verify(case['headers'], case['body'].encode(), case['keys'], now=case['now'])['id'])"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, CLIENT / "python"],  # -S: no installed package is to be found
        input=json.dumps(CASES["valid v1"]),
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout.strip() == CASES["valid v1"]["headers"]["webhook-id"]
