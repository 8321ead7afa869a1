"""Kept connections of the sender and the forms of HTTP it reads: what is reused, what is asked again, what is cut."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network

import pytest

from shared.egress import NotResolved
from shared.egress_lookup import RecentLookups
from shared.settings import LOOPBACK
from tests.waiting import until
from tests.workers.receiver import receiving, response
from workers.webhook_http import Response, WebhookSender

BODY = b'{"id":"evt_1"}'
NAME = "hooks.example.test"
OK = response(200)


async def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(LOOPBACK, http=True, lookup=here)
    yield sender
    await sender.close()


async def post(sender: WebhookSender, url: str, *, timeout_s: float = 5, **headers: str) -> Response:
    return await sender.post(url, {"webhook-id": "evt_1", **headers}, BODY, timeout_s=timeout_s)


async def no_line(sender: WebhookSender) -> None:
    async def none() -> bool:
        return len(sender._idle) == 0

    await until(none, "the sender keeps no connection")


async def drop(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_kept_connection_that_was_closed_meanwhile_is_no_failure(sender: WebhookSender):
    async with receiving(OK, drop, OK) as receiver:
        first = await post(sender, receiver.url())
        again = await post(sender, receiver.url())

    assert (first.status, again.status, again.error_class) == (200, 200, None)
    assert [request.connection for request in receiver.received] == [1, 1, 2]


async def test_only_one_more_connection_is_tried(sender: WebhookSender):
    async with receiving(OK, drop) as receiver:
        await post(sender, receiver.url())
        again = await post(sender, receiver.url())

    assert (again.status, again.error_class) == (None, "protocol")
    assert [request.connection for request in receiver.received] == [1, 1, 2]


async def test_answer_that_broke_off_on_a_kept_connection_is_not_asked_for_again(sender: WebhookSender):
    async def half_a_head(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        await writer.drain()
        writer.close()

    async with receiving(OK, half_a_head) as receiver:
        await post(sender, receiver.url())
        again = await post(sender, receiver.url())

    assert (again.status, again.error_class) == (None, "protocol")
    assert len(receiver.received) == 2


@pytest.mark.parametrize(
    ("answer", "status", "head"),
    [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: u\r\n\r\n",
            200,
            "abcde",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok", 202, "ok"),
    ],
    ids=["chunked", "no body", "after an interim answer"],
)
async def test_answer_that_ends_by_itself_leaves_the_connection_usable(
    sender: WebhookSender, answer: bytes, status: int, head: str
):
    async with receiving(answer) as receiver:
        answers = [await post(sender, receiver.url()) for _ in range(2)]

    assert [(one.status, one.head) for one in answers] == [(status, head)] * 2
    assert "x" not in (answers[0].response_headers or {})
    assert [request.connection for request in receiver.received] == [1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        response(200, connection="close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        OK + b"HTTP/1.1 200 OK\r\n",
        OK + b"and more",
        response(200, body=b"x" * 300_000),
    ],
    ids=["close", "HTTP/1.0", "a second answer", "bytes after it", "a body beyond what is read"],
)
async def test_connection_is_left_when_another_answer_on_it_could_not_be_trusted(sender: WebhookSender, answer: bytes):
    async with receiving(answer) as receiver:
        answers = [await post(sender, receiver.url()) for _ in range(2)]

    assert [one.status for one in answers] == [200, 200]
    assert [request.connection for request in receiver.received] == [1, 2]


async def test_answer_without_a_length_ends_with_its_connection(sender: WebhookSender):
    async def until_closed(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with receiving(until_closed) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.status, answer.error_class, answer.head) == (200, None, "all of it")


async def test_head_without_an_end_is_cut_off(sender: WebhookSender):
    async def long_head(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    async with receiving(long_head) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.status, answer.error_class) == (None, "protocol")


async def test_connection_is_kept_shortly():
    sender = WebhookSender(LOOPBACK, http=True, keepalive_s=0.02)
    async with receiving() as receiver:
        await post(sender, receiver.url())
        assert len(sender._idle) == 1
        await no_line(sender)
        await post(sender, receiver.url())

    assert [request.connection for request in receiver.received] == [1, 2]
    await sender.close()


async def test_connection_that_the_receiver_closes_is_forgotten():
    sender = WebhookSender(LOOPBACK, http=True, keepalive_s=600)
    async with receiving() as receiver:
        await post(sender, receiver.url())
        assert len(sender._idle) == 1
    await no_line(sender)
    await sender.close()


async def test_kept_connection_is_not_used_when_the_name_has_moved_away_from_it():
    zone = iter([["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.2"]])

    async def moving(host: str, port: int) -> Sequence[str]:
        return next(zone)

    sender = WebhookSender(LOOPBACK, http=True, lookup=moving)
    async with receiving() as receiver:
        for _ in range(2):
            assert (await post(sender, receiver.url(host=NAME))).status == 200
        moved = await post(sender, receiver.url(host=NAME))
    await sender.close()

    assert moved.error_class == "connect"
    assert [request.connection for request in receiver.received] == [1, 1]


async def test_answer_tells_its_times_its_headers_and_where_it_pointed(sender: WebhookSender):
    many = {f"x_{number}": "v" * 600 for number in range(60)}
    async with receiving(response(302, location="https://elsewhere.test/", **many)) as receiver:
        first = await post(sender, receiver.url())
        second = await post(sender, receiver.url())

    assert first.redirect_target == "https://elsewhere.test/"
    headers = first.response_headers or {}
    assert (headers["content-length"], headers["x-1"], len(headers)) == ("0", "v" * 500, 50)
    for answer, connected in ((first, True), (second, False)):
        assert answer.dns_ms is not None
        assert answer.first_byte_ms is not None
        assert (answer.connect_ms is not None) == connected


async def test_failed_attempt_tells_how_far_it_came():
    async def unknown(host: str, port: int) -> Sequence[str]:
        return []

    sender = WebhookSender(LOOPBACK, http=True, lookup=unknown)
    nowhere = await post(sender, f"http://{NAME}/")
    async with receiving() as receiver:
        url = receiver.url()
    closed = await post(sender, url)

    assert (nowhere.error_class, nowhere.dns_ms) == ("dns", None)
    assert (closed.error_class, closed.connect_ms, closed.first_byte_ms) == ("connect", None, None)
    assert closed.dns_ms is not None


async def test_header_that_would_become_two_is_not_sent(sender: WebhookSender):
    async with receiving() as receiver:
        answer = await post(sender, receiver.url(), authorization="a\r\nx-more: b")

    assert answer.error_class == "protocol"
    assert receiver.connections == 0


async def test_name_is_looked_up_once_a_second_and_its_address_checked_every_time():
    asked: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    recent = RecentLookups(lookup)
    open_, shut = (
        WebhookSender(networks, http=True, lookup=recent) for networks in (LOOPBACK, [ip_network("10.0.0.0/8")])
    )
    async with receiving() as receiver:
        assert (await post(open_, receiver.url(host=NAME))).status == 200
        assert (await post(shut, receiver.url(host=NAME))).error_class == "url_refused"
        assert (await post(open_, receiver.url())).status == 200
    await open_.close()

    assert asked == [NAME]


async def test_lookup_is_forgotten_and_a_failed_one_never_kept():
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def changing(host: str, port: int) -> Sequence[str]:
        return next(answers)

    brief = RecentLookups(changing, keep_s=0)
    assert [list(await brief(NAME, 80)) for _ in range(2)] == [["127.0.0.1"], ["127.0.0.2"]]

    asked = 0

    async def later(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise NotResolved(host)
        return ["127.0.0.1"]

    recent = RecentLookups(later)
    with pytest.raises(NotResolved):
        await recent(NAME, 80)
    assert list(await recent(NAME, 80)) == ["127.0.0.1"]


async def test_name_is_asked_for_once_at_a_time_and_a_waiter_that_leaves_takes_nothing_away():
    asked, answer = 0, asyncio.Event()

    async def slow(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        await answer.wait()
        return ["127.0.0.1"]

    recent = RecentLookups(slow)
    waiters = [asyncio.ensure_future(recent(NAME, 80)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    answer.set()

    assert [list(found) for found in await asyncio.gather(*waiters[1:])] == [["127.0.0.1"]] * 2
    assert waiters[0].cancelled()
    assert asked == 1


async def test_answer_that_comes_after_our_time_is_not_taken_for_the_next_one(sender: WebhookSender):
    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.write(response(200, body=b"late"))

    async with receiving(late, response(202)) as receiver:
        first = await post(sender, receiver.url(), timeout_s=0.05)
        second = await post(sender, receiver.url())

    assert (first.status, first.error_class) == (None, "timeout")
    assert (second.status, second.head) == (202, "")
    assert [request.connection for request in receiver.received] == [1, 2]


async def test_connection_reset_after_the_head_does_not_undo_the_answer(sender: WebhookSender):
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.transport.abort()

    async with receiving(reset) as receiver:
        answer = await post(sender, receiver.url())

    assert (answer.status, answer.error_class, answer.head) == (200, None, "abc")
