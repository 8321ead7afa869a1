"""Starting replays: which events are meant, in which piece of the log, and how many there are."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from api.auth import Caller
from api.delivery_objects import states
from api.fields import event_id_at, job_id_at
from api.wire.deliveries import DEFAULT_RATE_PER_S, ReplayIn
from shared import event_log, event_types, ids, outbox, replays
from shared.db import Tx
from shared.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound
from shared.event_log import CLOCKS
from shared.replays import Filter, Matched, Piece, Replay, Target

MOST_RUNNING = 5
FILTERS = ("since", "until", "types", "job_id", "statuses")


class Subscriber(Target, Protocol):
    """An endpoint that says what it wants."""

    @property
    def events(self) -> Sequence[str]:
        """Types, `job.*` or `*`."""


async def recover(
    tx: Tx, endpoint: Subscriber, since: datetime, *, days: int, rate_per_s: float = DEFAULT_RATE_PER_S
) -> Replay:
    """Start sending what the endpoint subscribes to and was not delivered since then; asked for twice it is one replay.

    days: how long deliveries are kept; of what is older nobody knows whether it was delivered.
    """
    since = max(since, await replays.known_since(tx, days=days))
    wanted = Filter(types=event_types.matching(endpoint.events), since=since, missed=True)
    await outbox.hold(tx, [endpoint.team_id])
    running = await replays.recovering(tx, endpoint.id, wanted)
    return running or await start(tx, endpoint, wanted, rate_per_s)


async def start(tx: Tx, endpoint: Target, wanted: Filter, rate_per_s: float) -> Replay:
    """Start a replay of all that matches up to now; the timer makes its deliveries.

    The log is held: events that were being recorded without the endpoint in mind are in it, later ones see it.
    """
    await outbox.hold(tx, [endpoint.team_id])
    piece = await _piece(tx, endpoint.team_id, wanted)
    found = await replays.matched(tx, endpoint, wanted, piece)
    return await replays.create(tx, endpoint, wanted, piece, matched=found.count, rate_per_s=rate_per_s)


async def preview(tx: Tx, endpoint: Target, wanted: Filter) -> Matched:
    """What a replay that is started now would send."""
    return await replays.matched(tx, endpoint, wanted, await _piece(tx, endpoint.team_id, wanted))


async def check_room(tx: Tx, endpoint_id: UUID) -> None:
    """Raises Conflict when the endpoint has enough replays running."""
    if await replays.running_of(tx, endpoint_id) >= MOST_RUNNING:
        raise Conflict(f"{MOST_RUNNING} replays of this webhook are running. Wait for one or cancel it")


async def find_replay(tx: Tx, caller: Caller, replay_id: str) -> Replay:
    """The replay, when the caller may see it. Raises NotFound, Forbidden."""
    id_ = ids.parse_prefixed("rpl", replay_id)
    found = None if id_ is None else await replays.get(tx, id_)
    if found is None:
        raise NotFound("Replay not found")
    if not caller.may_see(found.team_id):
        raise Forbidden("Replay does not belong to your team")
    return found


async def wanted_by(tx: Tx, endpoint: Subscriber, body: ReplayIn) -> Filter:
    """The events that a request means. Raises BadRequest, Invalid."""
    given = [name for name in FILTERS if getattr(body, name) is not None]
    if body.event_ids is not None:
        if given:
            raise Invalid.at(
                ["body", given[0]],
                f"leave out {given[0]}: event_ids cannot be combined with other filters",
                "value_error",
            )
        return Filter(event_ids=await _known(tx, endpoint.team_id, body.event_ids))
    if not given:
        raise Invalid.at(["body"], f"give event_ids or one of {', '.join(FILTERS)}", "value_error")
    return Filter(
        types=_types(endpoint, body),
        job_id=job_id_at("body", body.job_id),
        since=body.since,
        until=body.until,
        states=None if body.statuses is None else states(body.statuses),
    )


def _types(endpoint: Subscriber, body: ReplayIn) -> list[str]:
    """Who names a job and no types wants all of it; an opt-in type still has to be named exactly, here or before."""
    if body.types is None:
        return event_types.matching([*endpoint.events, *(["*"] if body.job_id is not None else [])])
    unknown = event_types.unknown(body.types)
    if unknown is not None:
        raise BadRequest(f"Unknown event type: {unknown[:100]}")
    return event_types.matching(body.types)


async def _known(tx: Tx, team_id: str, event_ids: Sequence[str]) -> list[UUID]:
    found = [event_id_at(["body", "event_ids", n], text) for n, text in enumerate(event_ids)]
    unknown = await replays.unknown(tx, team_id, found)
    if unknown is not None:
        raise BadRequest(f"Unknown event: {ids.prefixed('evt', unknown)}")
    return found


async def _piece(tx: Tx, team_id: str, wanted: Filter) -> Piece:
    """The piece of the log in which all that matches lies: ends at its newest event."""
    end = await replays.log_end(tx, team_id)
    before, until = 0, end
    if wanted.since is not None:
        before = await event_log.place(tx, team_id, _shifted(wanted.since, -CLOCKS))
    if wanted.until is not None:
        until = min(end, await event_log.place(tx, team_id, _shifted(wanted.until, CLOCKS)))
    return Piece(next_seq=before + 1, until_seq=until)


def _shifted(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:
        return at
