"""Pulls a team's event log and posts every event, signed, to one local URL, which no one else need reach."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import orjson

from shared import signing
from shared.settings import VERSION

WAIT_S = 20.0
"""How long the api holds a request that finds nothing new."""
ANSWER_S = 15.0
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
PAGE = 100
NEVER = "9000-01-01T00:00:00Z"
"""No event is that young: a page since then is empty and says where the log ends."""
LATER = (408, 429)
"""Refusals that end by themselves, besides 5xx."""


class CannotListen(Exception):
    """The api refuses this key, cursor or filter; the message is its reason."""


@dataclass(kw_only=True)
class Listener:
    """Forwards in the order of the log; `cursor` is the last event that is done with.

    api: a client whose base URL is the api and that carries the team's key. local: one for `url`.
    moved: told each new cursor, before the next event is forwarded. say: told each line for the user.
    """

    api: httpx.AsyncClient
    local: httpx.AsyncClient
    url: str
    secret: str
    say: Callable[[str], None]
    moved: Callable[[str], None] = lambda _: None
    types: Sequence[str] = ()
    since: str | None = None
    cursor: str | None = None
    keep_going: bool = False
    wait_s: float = WAIT_S
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self) -> None:
        """Forward until cancelled. Raises CannotListen."""
        while True:
            await self.step()

    async def skip(self) -> None:
        """Go to the end of the log: only what happens from now on is forwarded. Raises CannotListen."""
        self._move((await self._page(since=NEVER, limit=1))["next_after"])

    async def look(self) -> None:
        """Ask for the first page and forward nothing. Raises CannotListen."""
        await self._page(since=self.since, limit=1)

    async def step(self) -> None:
        """Forward one page, or wait for one. Raises CannotListen."""
        asked_at = time.monotonic()
        page = await self._page(since=self.since, limit=PAGE, wait=self.wait_s)
        if not page["events"] and not page["has_more"] and time.monotonic() - asked_at < PAUSES_S[0]:
            await self.pause(PAUSES_S[0])  # it does not hold requests: a proxy in between, or it is about to stop
        for event in page["events"]:
            await self._forward(event)
            self._move(event["id"])
        self._move(page["next_after"])

    def _move(self, cursor: str | None) -> None:
        if cursor is not None and cursor != self.cursor:
            self.cursor = cursor
            self.moved(cursor)

    async def _page(self, **asked: Any) -> dict[str, Any]:
        """A page of the log, however long the api is away. Raises CannotListen."""
        given = {**asked, "after": self.cursor, "types": ",".join(self.types) or None}
        params = {name: value for name, value in given.items() if value is not None}
        tries = 0
        while True:
            found, trouble, wait_s = await self._asked(params)
            if found is not None:
                if tries:
                    self.say("the api is back")
                return found
            wait_s = wait_s or _pause_s(tries)
            if not tries:
                self.say(f"the api is away ({trouble}); asking again until it is back")
            tries += 1
            await self.pause(wait_s)

    async def _asked(self, params: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str, float | None]:
        """The page; or else why there is none, and when the api says to ask again. Raises CannotListen."""
        try:
            answer = await self.api.get("/api/events", params=params, timeout=self.wait_s + ANSWER_S)
        except httpx.TransportError as error:
            return None, _why(error), None
        if answer.status_code < 500 and not answer.is_success and answer.status_code not in LATER:
            raise CannotListen(_detail(answer))
        try:
            page = answer.json() if answer.is_success else None
        except ValueError:
            page = None
        if isinstance(page, dict) and "events" in page:
            return page, "", None
        after = answer.headers.get("retry-after", "")
        return None, f"it answered {answer.status_code}", float(after) if after.isdecimal() else None

    async def _forward(self, event: Mapping[str, Any]) -> None:
        """Post one event until it is taken; once, when told to keep going."""
        tries = 0
        while True:
            outcome, is_taken = await self._post(event, tries + 1)
            line = f"{datetime.now().astimezone():%H:%M:%S}  {event['type']:<26} {event['id']}  {outcome}"
            if is_taken or self.keep_going:
                self.say(line if is_taken else f"{line}, passed over")
                return
            wait_s = _pause_s(tries)
            self.say(f"{line}, again in {wait_s:g} s")
            tries += 1
            await self.pause(wait_s)

    async def _post(self, event: Mapping[str, Any], attempt: int) -> tuple[str, bool]:
        body = orjson.dumps(event)
        headers = {
            **signing.headers([self.secret], message_id=event["id"], timestamp=int(time.time()), body=body),
            "content-type": "application/json",
            "user-agent": f"Waybill/{VERSION}",
            "waybill-attempt": str(attempt),
        }
        started = time.monotonic()
        try:
            answer = await self.local.post(self.url, content=body, headers=headers, timeout=ANSWER_S)
        except httpx.TransportError as error:
            return f"-> {_why(error)}", False
        aborted = answer.headers.get("webhook-delivery", "").strip().lower() == "abort-message"
        took_ms = round((time.monotonic() - started) * 1000)
        return f"-> {answer.status_code} in {took_ms} ms", answer.is_success or aborted


def _pause_s(tries: int) -> float:
    return PAUSES_S[min(tries, len(PAUSES_S) - 1)]


def _why(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return "no connection" if isinstance(error, httpx.ConnectError) else "the connection broke off"


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.reason_phrase
    hint = "; begin with --since, or with new events" if answer.status_code == 410 else ""
    if isinstance(detail, list):
        hint = "; listen with a team's virtual key" if "team_id" in str(detail) else ""
        detail = ", ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in detail)
    return f"the api answered {answer.status_code}: {detail}{hint}"
