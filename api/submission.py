"""From a call a client sent to a call that can be accepted: model, price, credential, estimate, limits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from api.desk import Desk
from api.wire.calls import CallbackIn, CallIn, request_text
from shared import callbacks, estimate, ids, limits, models
from shared.calls import NewCall
from shared.db import Tx
from shared.errors import Invalid, Unavailable
from shared.idempotency import Claim
from shared.intake import Submission
from shared.jobs import Job
from shared.keys import Key
from shared.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A checked callback as it is stored."""

    url: str | None = None
    events: tuple[str, ...] = ()
    secret: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What was accepted: the future of its end, and the headers that tell of the limits."""

    finished: "asyncio.Future[None]"
    headers: Mapping[str, str]


async def resolve(
    rt: Runtime, tx: Tx, team_id: str, call: CallIn, loc: Sequence[str | int] = ("body",)
) -> models.Route:
    """The candidates for a call, in order. Raises Forbidden (access), BadRequest, Invalid (no price), Unavailable."""
    found = await models.resolve(tx, team_id, call.asked_model)
    if not _may_be_billed(rt, found.candidates[0]):
        raise Invalid.at([*loc, "model"], "model has no price", "value_error.unpriced")
    # A fallback without a price is left out: it could only fail, or be given away.
    route = replace(found, candidates=tuple(c for c in found.candidates if _may_be_billed(rt, c)))
    if not any(_has_credential(rt, candidate) for candidate in route.candidates):
        provider = route.candidates[0].provider
        raise Unavailable(
            f"No provider credentials configured for {provider}. Please add credentials in the admin dashboard.",
            retry_after_s=60,
        )
    return route


def new_call(
    rt: Runtime,
    call: CallIn,
    route: models.Route,
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
    request = call.provider_request()
    largest = [_max_output(rt, candidate) for candidate in route.candidates]
    return NewCall(
        id=call_id or ids.new(),
        job_id=job_id,
        team_id=key.team_id,
        model=route.asked,
        candidates=[candidate.alias for candidate in route.candidates],
        request=request_text(request),
        created_at=now,
        deadline_s=call.deadline_s or rt.settings.call_deadline_s,
        position=position,
        priority=priority,
        purpose=call.purpose,
        metadata=call.metadata,
        call_metadata=call.call_metadata,
        estimated_prompt_tokens=estimate.prompt_tokens(request),
        estimated_output_tokens=max(estimate.output_tokens(request, most) for most in largest),
        callback_url=callback.url,
        callback_events=list(callback.events),
        callback_secret_sealed=callback.secret,
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
    """Count against the team's limits, then accept. What was counted is given back when it is refused.

    Raises TooManyRequests, Unavailable (a limit is set and Redis cannot tell), and what intake refuses.
    """
    counted = [(str(call.id), _tokens_of(call)) for call in calls] or [(str(job_id), 0)]
    allowed = limits.Limits(team_id=key.team_id, rpm=key.team_rpm_limit, tpm=key.team_tpm_limit)
    taken = await limits.take(rt.redis, allowed, requests=counted)
    finished = desk.waiters.expect(waits_for)
    try:
        await desk.intake.add(
            Submission(
                job_id=job_id,
                team_id=key.team_id,
                new_job=new_job,
                deadline_s=deadline_s,
                calls=calls,
                budget_mode=key.budget_mode,
                charge_failed_calls=key.charge_failed_calls,
                claim=claim,
            )
        )
    except BaseException:
        desk.waiters.forget(waits_for, finished)
        await limits.give_back(rt.redis, taken)
        raise
    return Submitted(finished=finished, headers=taken.headers)


def _tokens_of(call: NewCall) -> int:
    return call.estimated_prompt_tokens + call.estimated_output_tokens


def _may_be_billed(rt: Runtime, candidate: models.Candidate) -> bool:
    price = rt.prices.price(
        candidate.litellm_model,
        input_=candidate.input_nanousd_per_mtok,
        output=candidate.output_nanousd_per_mtok,
        cached_input=candidate.cached_input_nanousd_per_mtok,
    )
    return price is not None or candidate.allow_unpriced


def _has_credential(rt: Runtime, candidate: models.Candidate) -> bool:
    if candidate.has_key or candidate.api_base is not None:
        return True
    return rt.settings.provider_env_fallback and candidate.provider in rt.settings.providers_in_environment


def _max_output(rt: Runtime, candidate: models.Candidate) -> int | None:
    if candidate.max_output_tokens is not None:
        return candidate.max_output_tokens
    bundled: Any = rt.prices.of(candidate.litellm_model)
    return None if bundled is None else bundled.max_output_tokens
