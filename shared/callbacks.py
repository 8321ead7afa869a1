"""The callback of one job, call or batch: its URL, events and secret as a client gives them, checked for storing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from shared import egress, event_types, signing
from shared.errors import Invalid
from shared.settings import Settings

Kind = Literal["job", "call", "batch"]

MAX_EVENTS = 50
BATCH_ENDS = tuple(type_ for type_ in event_types.ALL if type_.startswith("batch."))
DEFAULTS = {"job": event_types.JOB_DEFAULT, "call": event_types.CALL_DEFAULT, "batch": BATCH_ENDS}
ALLOWED = {
    "job": tuple(type_ for type_ in event_types.ALL if type_.startswith(("job.", "call."))),
    "call": tuple(type_ for type_ in event_types.ALL if type_.startswith("call.")),
    "batch": BATCH_ENDS,
}
KEPT_ON = {"job": "jobs", "call": "calls", "batch": "jobs"}
"""Whose row holds it: a batch's is on its job, which has the same id."""


@dataclass(frozen=True, kw_only=True)
class Callback:
    """A checked callback. `secret` is the client's own, None for the team's; seal it with `secret_purpose`."""

    url: str
    events: tuple[str, ...]
    secret: str | None


def secret_purpose(kind: Kind, id_: UUID) -> str:
    """What `callback_secret_sealed` of this job, call or batch is sealed for."""
    return f"{KEPT_ON[kind]}.callback_secret:{id_}"


async def checked(
    kind: Kind,
    *,
    url: str | None,
    events: Sequence[str] | None,
    secret: str | None,
    settings: Settings,
    lookup: egress.Lookup = egress.system_lookup,
    loc: Sequence[str | int] = ("body",),
) -> Callback | None:
    """The callback these fields ask for, None without a URL. Raises Invalid at `[*loc, "callback_url"]` and the like.

    Resolves the URL's host: call it before any transaction is open.
    """
    if url is None:
        if events is not None or secret is not None:
            raise Invalid.at((*loc, "callback_url"), "field required", "value_error.missing")
        return None
    _check_events(kind, events, loc)
    if secret is not None:
        _check_secret(secret, loc)
    try:
        await egress.accept(url, settings.webhook_networks, http=settings.webhook_http, lookup=lookup)
    except egress.UrlRefused as refused:
        raise Invalid.at((*loc, "callback_url"), f"not allowed: {refused.reason}", "value_error.url") from None
    return Callback(url=url, events=DEFAULTS[kind] if events is None else tuple(events), secret=secret)


def _check_events(kind: Kind, events: Sequence[str] | None, loc: Sequence[str | int]) -> None:
    if events is None:
        return
    place = (*loc, "callback_events")
    if not 1 <= len(events) <= MAX_EVENTS:
        raise Invalid.at(place, f"must have 1 to {MAX_EVENTS} items", "value_error.length")
    for index, event in enumerate(events):
        if event == "*" or event_types.unknown([event], ALLOWED[kind]) is not None:
            raise Invalid.at((*place, index), f"unknown event type for a {kind}", "value_error.event_type")


def _check_secret(secret: str, loc: Sequence[str | int]) -> None:
    try:
        signing.secret_bytes(secret)
    except ValueError as error:
        raise Invalid.at((*loc, "callback_secret"), str(error), "value_error.secret") from None
