"""From a call a client sent to a call that can be accepted: model, price, credential, estimate, limits."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from api.desk import Desk
from api.known_routes import Question
from api.wire.calls import CallbackIn, CallIn, request_text
from shared import callbacks, estimate, ids, limits, models, money
from shared.charging import Terms
from shared.db import Tx
from shared.errors import Invalid, Unavailable
from shared.idempotency import Claim
from shared.intake import Submission
from shared.jobs import Job
from shared.keys import Key
from shared.new_calls import NewCall
from shared.prices import Price
from shared.runtime import Runtime

MOST_NANOUSD = 10**15
"""No call is estimated at more than a million dollars, whatever its client asks for: sums of them fit their columns."""


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
    rt: Runtime, desk: Desk, tx: Tx, key: Key, call: CallIn, loc: Sequence[str | int] = ("body",)
) -> models.Route:
    """The candidates for a call, in order. Raises Forbidden (access), BadRequest, Invalid (no price), Unavailable."""
    question = Question(key.team_id, call.asked_model, tuple(key.models) if key.models else None)
    route, now = desk.routes.get(question), time.monotonic()
    if route is None:
        route = _usable(rt, await models.resolve(tx, key.team_id, call.asked_model, only=key.models), loc)
        desk.routes.keep(question, route, read_at=now)
    return route


def _usable(rt: Runtime, found: models.Route, loc: Sequence[str | int]) -> models.Route:
    if not _may_be_billed(rt, found.candidates[0]):
        raise Invalid.unpriced(*loc, "model")
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
    prompt = estimate.prompt_tokens(request)
    output = max(estimate.output_tokens(request, _max_output(rt, candidate)) for candidate in route.candidates)
    cost_nanousd = _most_nanousd(rt, route, key, prompt, output)
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
        estimated_prompt_tokens=prompt,
        estimated_output_tokens=output,
        estimate_nanousd=cost_nanousd,
        key_id=key.id,
        budget_ids=list(key.budget_ids) if key.budget_ids and cost_nanousd else None,
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
    """Count against the limits of team and key, then accept. What was counted is given back when it is refused.

    Raises TooManyRequests, Unavailable (no new work is taken, or a limit is set and Redis cannot tell), and what
    intake refuses.
    """
    counted = [(str(call.id), _tokens_of(call)) for call in calls] or [(str(job_id), 0)]
    desk.door.check()
    taken = await limits.take(rt.redis, _limits(key), requests=counted)
    finished = desk.waiters.expect(waits_for)
    try:
        await desk.intake.add(
            Submission(
                job_id=job_id,
                team_id=key.team_id,
                new_job=new_job,
                deadline_s=deadline_s,
                calls=calls,
                terms=_terms(key),
                limited_key=None if key.max_parallel_requests is None else key.id,
                claim=claim,
                max_parallel_calls=key.max_parallel_calls,
                max_queued_calls=key.max_queued_calls,
            )
        )
    except BaseException:
        desk.waiters.forget(waits_for, finished)
        await limits.give_back(rt.redis, taken)
        raise
    return Submitted(finished=finished, headers=taken.headers)


def _limits(key: Key) -> tuple[limits.Limits, ...]:
    return (
        limits.Limits(team_id=key.team_id, rpm=key.team_rpm_limit, tpm=key.team_tpm_limit),
        limits.Limits(team_id=key.team_id, key_id=key.id, rpm=key.rpm_limit, tpm=key.tpm_limit),
    )


def _tokens_of(call: NewCall) -> int:
    return call.estimated_prompt_tokens + call.estimated_output_tokens


def _may_be_billed(rt: Runtime, candidate: models.Candidate) -> bool:
    return _price(rt, candidate) is not None or candidate.allow_unpriced


def _price(rt: Runtime, candidate: models.Candidate) -> Price | None:
    return rt.prices.price(
        candidate.litellm_model,
        input_=candidate.input_nanousd_per_mtok,
        output=candidate.output_nanousd_per_mtok,
        cached_input=candidate.cached_input_nanousd_per_mtok,
    )


def _most_nanousd(rt: Runtime, route: models.Route, key: Key, prompt_tokens: int, output_tokens: int) -> int:
    """What the call costs its team at most: at the dearest candidate, with every estimated token used."""
    prices = [price for candidate in route.candidates if (price := _price(rt, candidate)) is not None]
    costs = [price.most_nanousd(prompt_tokens=prompt_tokens, completion_tokens=output_tokens) for price in prices]
    return min(money.with_markup(max(costs, default=0), key.cost_markup_percentage), MOST_NANOUSD)


def _terms(key: Key) -> Terms:
    return Terms(
        budget_mode=key.budget_mode,
        charge_failed_calls=key.charge_failed_calls,
        credits_per_dollar=key.credits_per_dollar,
        tokens_per_credit=key.tokens_per_credit,
    )


def _has_credential(rt: Runtime, candidate: models.Candidate) -> bool:
    if candidate.has_key or candidate.api_base is not None:
        return True
    return rt.settings.provider_env_fallback and candidate.provider in rt.settings.providers_in_environment


def _max_output(rt: Runtime, candidate: models.Candidate) -> int | None:
    if candidate.max_output_tokens is not None:
        return candidate.max_output_tokens
    bundled: Any = rt.prices.of(candidate.litellm_model)
    return None if bundled is None else bundled.max_output_tokens
