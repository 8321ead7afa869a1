"""From what a provider did to the report that closes the attempt: tokens, price, costs, and the call's next state."""

from dataclasses import replace

from shared.attempt_reports import Report, Usage
from shared.attempts import Orphan
from shared.calls import Claimed
from shared.money import with_markup
from shared.prices import UNPRICED, Price, PriceMap
from shared.settings import Settings
from shared.states import CallState, Outcome
from shared.waiting_calls import Expired
from workers.provider import Answer, ProviderError
from workers.retry import SoFar, after_failure, waits_out

KEPT_CODES = ("provider_timeout", "deadline_exceeded", "cancelled", "internal_error")
"""What a stream that broke off is not called `stream_interrupted` for."""


Tried = Claimed | Expired | Orphan
"""What knows a try's model, its prices, and how many tokens it may use."""


def price_of(row: Tried, prices: PriceMap) -> Price:
    """The price of a claimed or expired call's candidate; `unpriced` is flagged on the attempt, never silently 0."""
    if row.litellm_model is None:
        return UNPRICED
    found = prices.price(
        row.litellm_model,
        input_=row.input_nanousd_per_mtok,
        output=row.output_nanousd_per_mtok,
        cached_input=row.cached_input_nanousd_per_mtok,
    )
    return found or UNPRICED


def estimated(row: Tried, price: Price, outcome: Outcome = Outcome.UNKNOWN) -> tuple[Usage, int]:
    """What an attempt may have cost us, recorded as an estimate: unknown, all of it; abandoned, the prompt."""
    usage = Usage(
        prompt_tokens=row.estimated_prompt_tokens,
        completion_tokens=0 if outcome == Outcome.ABANDONED else row.estimated_output_tokens,
        source="estimated",
    )
    return usage, price.cost_nanousd(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)


def succeeded(call: Claimed, answer: Answer, prices: PriceMap, *, latency_ms: int) -> Report:
    """The provider's complete answer was read."""
    price, usage = price_of(call, prices), answer.usage
    cost = price.cost_nanousd(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )
    return Report(
        call_id=call.id,
        job_id=call.job_id,
        number=call.number,
        outcome=Outcome.SUCCEEDED,
        state=CallState.COMPLETED,
        candidate=call.candidate,
        candidate_attempts=call.candidate_attempts + 1,
        usage=usage,
        price=price,
        provider_cost_nanousd=cost,
        client_cost_nanousd=with_markup(cost, call.markup_percentage),
        response=answer.response,
        finish_reason=answer.finish_reason,
        latency_ms=latency_ms,
        provider_request_id=answer.provider_request_id,
    )


def failed(call: Claimed, error: ProviderError, prices: PriceMap, settings: Settings, *, left_s: float) -> Report:
    """The attempt failed, or its outcome is unknown; left_s: seconds to the call's deadline."""
    so_far = SoFar(
        candidates=len(call.candidates),
        candidate=call.candidate,
        candidate_attempts=call.candidate_attempts,
        per_candidate=settings.attempts_per_candidate if call.retries is None else call.retries + 1,
        failures=call.failures,
        deadline_in_s=left_s,
        on_unknown=call.on_unknown,
    )
    waiting = waits_out(so_far, error, settings, tries=call.number) if call.batched else None
    following = waiting or after_failure(so_far, error, settings)
    price, usage, cost = price_of(call, prices), Usage(), 0
    if error.outcome in (Outcome.UNKNOWN, Outcome.ABANDONED):
        usage, cost = estimated(call, price, error.outcome)
    final = following.state == CallState.FAILED
    return Report(
        call_id=call.id,
        job_id=call.job_id,
        number=call.number,
        outcome=error.outcome,
        state=following.state,
        candidate=following.candidate,
        candidate_attempts=following.candidate_attempts,
        retry_in_s=following.retry_in_s,
        failed=int(following.is_failure),
        usage=usage,
        price=price,
        provider_cost_nanousd=cost,
        maybe_billed=error.outcome in (Outcome.UNKNOWN, Outcome.ABANDONED),
        http_status=error.http_status,
        error_code=error.code,
        error_message=error.message,
        retry_after_s=round(error.retry_after_s) if final and error.retry_after_s is not None else None,
        provider_request_id=error.provider_request_id,
    )


def interrupted(
    call: Claimed, error: ProviderError, prices: PriceMap, *, said_tokens: int, is_paid: bool = True
) -> Report:
    """A stream broke off after chunks were delivered: no further try.

    error: what broke it; a time limit, a cancellation and our own bugs keep their code. is_paid: whether the client
    pays for what was said.
    """
    price = price_of(call, prices)
    usage = Usage(prompt_tokens=call.estimated_prompt_tokens, completion_tokens=said_tokens, source="estimated")
    cost = price.cost_nanousd(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
    outcome = error.outcome if error.outcome == Outcome.ABANDONED else Outcome.UNKNOWN
    return Report(
        call_id=call.id,
        job_id=call.job_id,
        number=call.number,
        outcome=outcome,
        state=CallState.CANCELLED if error.code == "cancelled" else CallState.FAILED,
        candidate=call.candidate,
        candidate_attempts=call.candidate_attempts + 1,
        failed=1,
        has_delivered=True,
        usage=usage,
        price=price,
        provider_cost_nanousd=cost,
        client_cost_nanousd=with_markup(cost, call.markup_percentage) if is_paid else 0,
        maybe_billed=True,
        http_status=error.http_status,
        error_code=error.code if error.code in KEPT_CODES else "stream_interrupted",
        error_message=error.message,
        provider_request_id=error.provider_request_id,
    )


def unstorable(report: Report) -> Report:
    """A report the database refuses for what the provider put into it: the call ends, what it cost stays on record."""
    return replace(
        report,
        outcome=Outcome.UNKNOWN,
        state=CallState.FAILED,
        retry_in_s=None,
        usage=Usage(),
        client_cost_nanousd=0,
        has_delivered=False,
        maybe_billed=True,
        response=None,
        finish_reason=None,
        error_code="internal_error",
        error_message=None,
        provider_request_id=None,
    )


def handed_back(call: Claimed, prices: PriceMap) -> Report:
    """Cut by a drain: sent, its end not seen, nobody's failure. `on_unknown` says whether the call is tried again."""
    price = price_of(call, prices)
    usage, cost = estimated(call, price)
    code = "attempts_exhausted" if call.on_unknown == "fail" else None
    return Report(
        call_id=call.id,
        job_id=call.job_id,
        number=call.number,
        outcome=Outcome.UNKNOWN,
        state=CallState.FAILED if code else CallState.PENDING,
        candidate=call.candidate,
        candidate_attempts=call.candidate_attempts,
        retry_in_s=None if code else 0,
        usage=usage,
        price=price,
        provider_cost_nanousd=cost,
        maybe_billed=True,
        error_code=code,
    )


def swept(row: Expired, prices: PriceMap, settings: Settings) -> Report:
    """A lease ran out: nobody knows how the attempt ended. Worker deaths count apart from the provider's failures."""
    price = price_of(row, prices)
    usage, cost = estimated(row, price)
    code = _end_after_death(row, settings)
    return Report(
        call_id=row.id,
        job_id=row.job_id,
        number=row.number,
        outcome=Outcome.UNKNOWN,
        state=CallState.FAILED if code else CallState.PENDING,
        candidate=row.candidate,
        candidate_attempts=row.candidate_attempts,
        retry_in_s=None if code else 0,
        died=1,
        swept=True,
        usage=usage,
        price=price,
        provider_cost_nanousd=cost,
        maybe_billed=True,
        error_code=code,
    )


def abandoned(orphan: Orphan, prices: PriceMap) -> Report:
    """The call was ended from outside and the worker that ran it never reported."""
    price = price_of(orphan, prices)
    usage, cost = estimated(orphan, price, Outcome.ABANDONED)
    return Report(
        call_id=orphan.call_id,
        job_id=orphan.job_id,
        number=orphan.number,
        outcome=Outcome.ABANDONED,
        state=CallState.FAILED,
        swept=True,
        usage=usage,
        price=price,
        provider_cost_nanousd=cost,
        maybe_billed=True,
    )


def _end_after_death(row: Expired, settings: Settings) -> str | None:
    if row.has_delivered:
        return "stream_interrupted"
    if row.deaths + 1 >= settings.max_worker_deaths:
        return "worker_crashed"
    if row.deadline_in_s <= 0:
        return "deadline_exceeded"
    return "attempts_exhausted" if row.on_unknown == "fail" else None
