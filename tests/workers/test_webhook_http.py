"""The sender against a real receiver: what goes over the wire, and what each kind of answer or failure becomes."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.egress import Lookup, NotResolved
from shared.settings import LOOPBACK
from tests.workers.receiver import never, receiving, response
from workers.webhook_http import Response, WebhookSender

BODY = b'{"id":"evt_1"}'
NAME = "hooks.example.test"


def to(*addresses: str) -> Lookup:
    """A resolver that knows one answer to everything."""

    async def lookup(host: str, port: int) -> Sequence[str]:
        if not addresses:
            raise NotResolved(host)
        return addresses

    return lookup


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    """A sender that resolves every name to 127.0.0.1 and may connect there."""
    sender = WebhookSender(LOOPBACK, http=True, lookup=to("127.0.0.1"))
    yield sender
    await sender.close()


async def post(sender: WebhookSender, url: str, *, timeout_s: float = 5) -> Response:
    return await sender.post(url, {"webhook-id": "evt_1"}, BODY, timeout_s=timeout_s)


async def test_request_goes_to_the_checked_address_and_names_the_host(sender: WebhookSender):
    async with receiving(response(200, body=b"thanks")) as receiver:
        answer = await post(sender, receiver.url("/hook?a=%20b", host=NAME))

    assert (answer.status, answer.error_class, answer.head) == (200, None, "thanks")
    request = receiver.received[0]
    assert request.line == "POST /hook?a=%20b HTTP/1.1"
    assert request.headers["host"] == f"{NAME}:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Waybill/")
    assert request.headers["webhook-id"] == "evt_1"
    assert "cookie" not in request.headers
    assert request.body == BODY


async def test_connection_is_kept_for_the_same_name_and_never_lent_to_another(sender: WebhookSender):
    async with receiving() as receiver:
        for host in (NAME, NAME, "other.example.test"):
            assert (await post(sender, receiver.url(host=host))).status == 200

    assert [request.connection for request in receiver.received] == [1, 1, 2]


async def test_redirect_is_not_followed_and_its_target_is_told(sender: WebhookSender):
    async with receiving() as elsewhere, receiving(response(302, location=elsewhere.url())) as receiver:
        answer = await post(sender, receiver.url())

        assert (answer.status, answer.error_class) == (302, "status")
        assert elsewhere.url() in (answer.error or "")
        assert elsewhere.received == []


async def test_cookie_of_an_answer_is_not_sent_back(sender: WebhookSender):
    async with receiving(response(200, set_cookie="a=b")) as receiver:
        await post(sender, receiver.url())
        await post(sender, receiver.url())

    assert "cookie" not in receiver.received[1].headers


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    async with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("ALL_PROXY", proxy.url(""))
        sender = WebhookSender(LOOPBACK, http=True)
        assert (await post(sender, receiver.url())).status == 200
        await sender.close()

    assert (len(proxy.received), len(receiver.received)) == (0, 1)


async def test_no_head_in_time_is_a_timeout(sender: WebhookSender):
    async with receiving(never) as receiver:
        answer = await post(sender, receiver.url(), timeout_s=0.2)

    assert (answer.status, answer.error_class) == (None, "timeout")
    assert len(receiver.received) == 1


async def test_head_that_trickles_does_not_outlast_the_deadline(sender: WebhookSender):
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: y\r\n")
            await asyncio.sleep(0.02)

    async with receiving(trickle) as receiver:
        answer = await post(sender, receiver.url(), timeout_s=0.3)

    assert (answer.status, answer.error_class) == (None, "timeout")


async def test_slow_body_fails_although_the_head_came():
    sender = WebhookSender(LOOPBACK, http=True, body_timeout_s=0.2)

    async def head_only(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await never(writer)

    async with receiving(head_only) as receiver:
        answer = await post(sender, receiver.url())
    await sender.close()

    assert (answer.status, answer.error_class, answer.head) == (200, "body_too_slow", "abc")


async def test_deadline_ends_with_the_head(sender: WebhookSender):
    async def late_body(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.write(b"late")

    async with receiving(late_body) as receiver:
        answer = await post(sender, receiver.url(), timeout_s=0.3)

    assert (answer.status, answer.error_class, answer.head) == (200, None, "late")


async def test_endless_body_is_cut_off_and_only_its_start_kept(sender: WebhookSender):
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 1000)
            sent += 1000
            await writer.drain()

    async with receiving(endless) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.status, answer.error_class) == (200, None)
    assert answer.head == "x" * 1000
    assert sent >= 20_000


async def test_answer_of_any_bytes_becomes_text_postgres_can_hold(sender: WebhookSender):
    async with receiving(response(500, body=b"\x00\xff\xfeok")) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.status, answer.error_class) == (500, "status")
    assert answer.head is not None
    assert "\x00" not in answer.head
    assert answer.head.endswith("ok")


async def test_connection_dropped_without_an_answer_is_a_protocol_error(sender: WebhookSender):
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with receiving(reset) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.status, answer.error_class) == (None, "protocol")
    assert receiver.received[0].body == BODY


async def test_what_is_not_http_is_a_protocol_error(sender: WebhookSender):
    async with receiving(b"SSH-2.0-OpenSSH_9.0\r\n\r\n") as receiver:
        assert (await post(sender, receiver.url())).error_class == "protocol"


async def test_refused_connection(sender: WebhookSender):
    async with receiving() as receiver:
        url = receiver.url()

    assert (await post(sender, url)).error_class == "connect"


async def test_next_address_is_tried_when_the_first_does_not_answer():
    sender = WebhookSender(LOOPBACK, http=True, lookup=to("127.0.0.2", "127.0.0.1"))
    async with receiving() as receiver:
        assert (await post(sender, receiver.url(host=NAME))).status == 200
    await sender.close()


async def test_name_without_an_address_is_a_dns_failure():
    sender = WebhookSender(LOOPBACK, http=True, lookup=to())

    assert (await post(sender, "http://gone.example.test/")).error_class == "dns"


async def test_name_that_moves_to_a_private_address_is_refused_without_a_byte():
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    sender = WebhookSender([ip_network("127.0.0.1/32")], http=True, lookup=rebinding)
    async with receiving() as receiver:
        assert (await post(sender, receiver.url(host=NAME))).status == 200
        answer = await post(sender, receiver.url(host=NAME))
    await sender.close()

    assert (answer.error_class, answer.error) == ("url_refused", "loopback address")
    assert len(receiver.received) == 1


async def test_plain_http_is_refused_when_not_allowed():
    sender = WebhookSender(LOOPBACK, http=False)
    async with receiving() as receiver:
        answer = await post(sender, receiver.url())

    assert answer.error_class == "url_refused"
    assert receiver.connections == 0


@pytest.mark.parametrize("value", ["abort-message", " Abort-Message"])
async def test_receiver_can_abort_a_message(sender: WebhookSender, value: str):
    async with receiving(response(400, webhook_delivery=value, retry_after="7")) as receiver:
        answer = await post(sender, receiver.url())

    assert answer.abort
    assert answer.retry_after == "7"


async def test_kept_connections_are_few():
    sender = WebhookSender(LOOPBACK, http=True, lookup=to("127.0.0.1"), max_idle=2)
    async with receiving() as receiver:
        for number in range(5):
            await post(sender, receiver.url(host=f"h{number}.example.test"))

    assert len(sender._idle) == 2
    await sender.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for NAME with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "both.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_tls_is_verified_for_the_name_and_sni_keeps_it(certificate: Path):
    trusting = ssl.create_default_context(cafile=certificate)
    sender = WebhookSender(LOOPBACK, http=False, lookup=to("127.0.0.1"), tls=trusting)
    async with receiving(tls=server_tls(certificate)) as receiver:
        right = await post(sender, receiver.url(host=NAME, scheme="https"))
        wrong = await post(sender, receiver.url(host="other.example.test", scheme="https"))
    await sender.close()

    assert (right.status, right.error_class) == (200, None)
    assert (wrong.status, wrong.error_class) == (None, "tls")
    assert [request.sni for request in receiver.received] == [NAME]


async def test_port_without_tls_is_said_to_have_none(sender: WebhookSender):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(response(400))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answer = await post(sender, f"https://127.0.0.1:{port}/")

    assert (answer.error_class, answer.error) == ("tls", "TLS: the port does not speak TLS")


async def test_head_that_is_too_large_is_said_to_be(sender: WebhookSender):
    async with receiving(response(200, x_large="x" * 300_000)) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.error_class, answer.error) == ("protocol", "the answer's head is larger than 65,536 bytes")


async def test_certificate_nobody_vouches_for_is_refused(certificate: Path):
    sender = WebhookSender(LOOPBACK, http=False, lookup=to("127.0.0.1"))
    async with receiving(tls=server_tls(certificate)) as receiver:
        answer = await post(sender, receiver.url(host=NAME, scheme="https"))
    await sender.close()

    assert answer.error_class == "tls"
    assert "certificate" in (answer.error or "")
    assert receiver.received == []
