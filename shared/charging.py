"""What a job holds and what it is charged: rules of its terms and its sums, without a database.

job_based            holds 1 from its first call on, is charged 1 when it completed well; a batch holds 1 for each line
                     from its acceptance on and is charged 1 for each that completed, however it ends
consumption_usd      holds (cost so far + open estimates) x credits per dollar, is charged cost x credits per dollar
consumption_tokens   the same with tokens / tokens per credit

Both are rounded up, and once per job.
"""

from dataclasses import dataclass
from decimal import Decimal

from shared import money
from shared.jobs import Job
from shared.keys import Key
from shared.money import NANOUSD_PER_USD
from shared.states import JobStatus

MOST_NANOUSD = 10**14
"""No call is estimated at more than 100,000 dollars, whatever its client asks for: the sum of 90,000 that are open, as
of the most lines of a batch, fits its column.
"""
JOB_BASED_HOLD = 1
WORTH_A_WRITE = 10
"""A batch gives back what it holds too much once that is a tenth of its hold: not the account's row with every line."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a team pays by; a job keeps those of the moment its first call was accepted."""

    budget_mode: str = "job_based"
    charge_failed_calls: bool = False
    credits_per_dollar: Decimal = Decimal(10)
    tokens_per_credit: int = 10_000
    cost_markup_percentage: Decimal = Decimal(0)


JOB_BASED = Terms()
"""What holds unless a team says otherwise."""


def terms_of(key: Key) -> Terms:
    """The terms of a key's team, as they were when the key was read."""
    return Terms(
        budget_mode=key.budget_mode,
        charge_failed_calls=key.charge_failed_calls,
        credits_per_dollar=key.credits_per_dollar,
        tokens_per_credit=key.tokens_per_credit,
        cost_markup_percentage=key.cost_markup_percentage,
    )


def agree(job: Job, terms: Terms) -> None:
    """Write the terms on the job."""
    job.budget_mode, job.charge_failed_calls = terms.budget_mode, terms.charge_failed_calls
    job.credits_per_dollar, job.tokens_per_credit = terms.credits_per_dollar, terms.tokens_per_credit
    job.cost_markup_percentage = terms.cost_markup_percentage


def at_markup(nanousd: int, markup: Decimal, *, sized_at: Decimal) -> int:
    """A call's estimate that was made at one markup as it is at another, never below it."""
    cost_at_most = int((nanousd + Decimal("0.5")) / (1 + sized_at / 100))
    return min(money.with_markup(cost_at_most, markup), MOST_NANOUSD)


def should_hold(job: Job) -> int:
    """Credits a live job should hold: what it used so far and what its open calls may use at most."""
    if job.budget_mode is None:
        return 0
    if job.budget_mode == "job_based":
        return job.calls_total if job.is_batch else JOB_BASED_HOLD
    return _consumed(job, job.client_cost_nanousd + job.estimate_nanousd, job.total_tokens + job.estimate_tokens)


def excess(job: Job) -> int:
    """Credits a live job is to give back: what it holds beyond its wants; a job_based hold stays whole to the end."""
    over = max(0, job.credits_held - should_hold(job))
    return 0 if job.is_batch and over * WORTH_A_WRITE < job.credits_held else over


def owed(job: Job) -> int:
    """Credits a job that just became final is to be charged, whether or not the team still has them."""
    if job.budget_mode is None:
        return 0
    if job.budget_mode != "job_based":
        return _consumed(job, job.client_cost_nanousd, job.total_tokens)
    if job.is_batch:
        return job.calls_completed
    if job.status != JobStatus.COMPLETED:
        return 0
    good = job.calls_total >= 1 if job.charge_failed_calls else job.calls_completed >= 1 and job.calls_failed == 0
    return job.credits_held if good else 0


def _consumed(job: Job, cost_nanousd: int, tokens: int) -> int:
    if job.budget_mode == "consumption_usd":
        # A ratio of whole numbers, not a Decimal product: that would be rounded at 28 digits.
        numerator, denominator = (job.credits_per_dollar or Decimal(0)).as_integer_ratio()
        return _ceil(cost_nanousd * numerator, NANOUSD_PER_USD * denominator)
    return _ceil(tokens, job.tokens_per_credit or 1)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
