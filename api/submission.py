"""From a call a client sent to a call that is accepted: model, price, credential, limits."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from api.desk import Desk
from api.wire.calls import CallbackIn, CallIn
from shared import callbacks, ids, limits, models, routing
from shared.charging import terms_of
from shared.db import Tx
from shared.errors import WaybillError
from shared.idempotency import Claim
from shared.intake import Submission
from shared.jobs import Job
from shared.keys import Key
from shared.new_calls import NewCall
from shared.routing import question
from shared.runtime import Runtime
from shared.sizing import sized


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A checked callback as it is stored."""

    url: str | None = None
    events: tuple[str, ...] = ()
    secret: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What was accepted: the future of its end, and the limits as they stand with it, also as headers."""

    finished: "asyncio.Future[None]"
    headers: Mapping[str, str]
    windows: Sequence[limits.Window]


async def resolve(
    rt: Runtime, desk: Desk, tx: Tx, key: Key, call: CallIn, loc: Sequence[str | int] = ("body",)
) -> models.Route:
    """The candidates for a call, in order. Raises as `route`."""
    return known(desk, key, call.asked_model) or await route(rt, desk, tx, key, call.asked_model, loc)


async def route(
    rt: Runtime, desk: Desk, tx: Tx, key: Key, name: str | None, loc: Sequence[str | int] = ("body",)
) -> models.Route:
    """The candidates for a call that asks for this name (None: the team's default), as they are now.

    Raises Forbidden (access), BadRequest, Unpriced, Unavailable (no credential).
    """
    asked, now = question(key, name), time.monotonic()
    found = await routing.route(rt, tx, key, name, loc)
    desk.routes.keep(asked, found, read_at=now)
    return found


def known(desk: Desk, key: Key, name: str | None) -> models.Route | None:
    """The candidates for a call that asks for this name, where this process decided that a moment ago."""
    found = desk.routes.get(question(key, name))
    return None if found is None else _named(found, name)


def _named(found: models.Route, name: str | None) -> models.Route:
    """The route under the name the client knows: a key may have names of its own for models."""
    return found if name is None or name == found.asked else replace(found, asked=name)


def new_call(
    rt: Runtime,
    call: CallIn,
    found: models.Route,
    *,
    job_id: UUID,
    key: Key,
    now: datetime,
    call_id: UUID | None = None,
    callback: Sealed = Sealed(),
    position: int = 0,
    priority: int = 0,
) -> NewCall:
    """The row of an accepted call."""
    return NewCall(
        id=call_id or ids.new(),
        job_id=job_id,
        created_at=now,
        deadline_s=call.deadline_s or rt.settings.call_deadline_s,
        position=position,
        priority=priority,
        purpose=call.purpose,
        metadata=call.metadata,
        call_metadata=call.call_metadata,
        callback_url=callback.url,
        callback_events=list(callback.events),
        callback_secret_sealed=callback.secret,
        **sized(rt, key, found, call.provider_request()),
    )


async def checked_callback(
    rt: Runtime, kind: callbacks.Kind, id_: UUID, body: CallbackIn, loc: Sequence[str | int] = ("body",)
) -> Sealed:
    """The callback of a job or call, checked (this may resolve a name) and sealed. Raises Invalid."""
    checked = await callbacks.checked(
        kind,
        url=body.callback_url,
        events=body.callback_events,
        secret=body.callback_secret,
        settings=rt.settings,
        lookup=rt.lookup,
        loc=loc,
    )
    if checked is None:
        return Sealed()
    purpose = callbacks.secret_purpose(kind, id_)
    secret = None if checked.secret is None else rt.sealer.seal(checked.secret, purpose=purpose)
    return Sealed(url=checked.url, events=checked.events, secret=secret)


async def submit(
    rt: Runtime,
    desk: Desk,
    key: Key,
    *,
    job_id: UUID,
    waits_for: UUID,
    new_job: Job | None = None,
    deadline_s: float | None = None,
    calls: Sequence[NewCall] = (),
    claim: Claim | None = None,
) -> Submitted:
    """Count against the limits of team and key, then accept. What was counted is given back when it is refused.

    Raises TooManyRequests, Unavailable (no new work is taken, or a limit is set and Redis cannot tell), and what
    intake refuses.
    """
    counted = [(str(call.id), call.estimated_tokens) for call in calls] or [(str(job_id), 0)]
    desk.door.check()
    taken = await limits.take(rt.redis, limits_of(key), requests=counted)
    finished = desk.waiters.expect(waits_for)
    try:
        await desk.intake.add(
            Submission(
                job_id=job_id,
                team_id=key.team_id,
                new_job=new_job,
                deadline_s=deadline_s,
                calls=calls,
                terms=terms_of(key),
                limited_key=None if key.max_parallel_requests is None else key.id,
                claim=claim,
                max_parallel_calls=key.max_parallel_calls,
                max_queued_calls=key.max_queued_calls,
            ),
            key.team_id,
        )
    except BaseException as error:
        desk.waiters.forget(waits_for, finished)
        windows = await limits.give_back(rt.redis, taken)
        if isinstance(error, WaybillError):  # this request's own: the trouble of a whole group is none
            error.windows, error.headers = windows, {**limits.headers_of(windows), **error.headers}
        raise
    return Submitted(finished=finished, headers=taken.headers, windows=taken.windows)


def limits_of(key: Key) -> tuple[limits.Limits, ...]:
    """What counts against a request: the limits of the team, and those of the key itself."""
    return limits.subjects(
        key.team_id,
        key.id,
        rpm=key.team_rpm_limit,
        tpm=key.team_tpm_limit,
        key_rpm=key.rpm_limit,
        key_tpm=key.tpm_limit,
    )
