"""The metrics that are read at the scrape: their names, what they say, and their series from rows.

Values are in base units. Every label is a word of ours or a name that an admin chose: never a team, a key, or what a
client only asked for.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from prometheus_client.core import SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from api.metrics import family, gauge
from shared import clock, delivery_health, delivery_lists, figures
from shared.db import Tx
from shared.delivery_health import Health
from shared.delivery_lists import Summary
from shared.figures import Used

NANO = 1_000_000_000
ATTEMPTS_OF = timedelta(hours=24)
NEVER_SENT = "none"
"""The provider of calls that ended before one was asked."""

OUTCOMES = ("completed", "failed", "cancelled")
TOKENS = ("prompt", "completion")


def of_scrape(*, database: bool, redis: bool, parts: Mapping[str, bool]) -> list[Metric]:
    """Who answered this process, and which parts of the page are there."""
    return [
        gauge("waybill_database_up", "Whether Postgres answers this process.", database),
        gauge("waybill_redis_up", "Whether Redis answers this process.", redis),
        family(
            "waybill_scrape_ok", "Whether this part of the page could be read; 0: its metrics are lacking.", "gauge",
            ["part"], [([part], is_there) for part, is_there in parts.items()],
        ),
    ]  # fmt: skip


def of_process(*, queue_age_s: float, waiting: int) -> list[Metric]:
    """What this process has seen: how old the oldest call is that lacks a worker, and who waits here."""
    return [
        gauge(
            "waybill_queue_age_seconds",
            "For how long the oldest call has lacked nothing but a worker, as this process saw it within a second.",
            queue_age_s,
        ),
        gauge(
            "waybill_waiting_requests",
            "Requests of this process that wait for a call, a job or a check to end.",
            waiting,
        ),
    ]


def of_queues(lengths: Mapping[str, tuple[int, int]]) -> list[Metric]:
    """Of each queue: messages that wait, and all that are not done."""
    values = (
        ([queue, state], count)
        for queue, (waiting, known) in lengths.items()
        for state, count in (("waiting", waiting), ("taken", max(0, known - waiting)))
    )
    help_ = "Messages on Redis: waiting, or taken by a worker and not done. One holds up to eight ids."
    return [family("waybill_queue_messages", help_, "gauge", ["queue", "state"], values)]


async def of_work(tx: Tx) -> list[Metric]:
    """Calls and batches that have not ended."""
    calls = await figures.unfinished(tx)
    batches = await figures.open_batches(tx)
    attempts = await figures.attempts_per_call(tx, clock.now() - ATTEMPTS_OF)
    found = [
        family(
            "waybill_unfinished_calls", "Live calls, and lines of batches, that wait or run.", "gauge",
            ["kind", "state"],
            [
                (["call", "waiting"], calls.calls_waiting), (["call", "running"], calls.calls_running),
                (["line", "waiting"], calls.lines_waiting), (["line", "running"], calls.lines_running),
            ],
        ),
        family(
            "waybill_unfinished_batches", "Batches that are not final, checks of dry runs too.", "gauge",
            ["status"], [([status], count) for status, count in batches.items()],
        ),
    ]  # fmt: skip
    if attempts is not None:
        help_ = "How often a call is sent to a provider: of the newest 2,000 attempts at calls of the last day."
        found.append(gauge("waybill_attempts_per_call", help_, attempts))
    return found


async def of_webhooks(tx: Tx) -> list[Metric]:
    """Deliveries, their queues and endpoints."""
    summary = await delivery_lists.summary(tx, None)
    health = await delivery_health.find(tx)
    return [*_of_deliveries(summary, health.waiting), *_of_endpoints(health)]


def _of_deliveries(summary: Summary, waiting: int) -> list[Metric]:
    delays_ms = {"0.5": summary.first_attempt_p50_ms, "0.95": summary.first_attempt_p95_ms}
    return [
        family(
            "waybill_webhook_deliveries_last_day",
            "Deliveries made in the last 24 hours (the newest 50,000 at most) by how they stand.", "gauge",
            ["state"], [([state], count) for state, count in summary.outcomes.items()],
        ),
        gauge("waybill_webhook_deliveries_waiting", "Deliveries to be sent or sent again, whenever made.", waiting),
        gauge(
            "waybill_webhook_oldest_waiting_age_seconds", "Age of the oldest of them; 0: none waits.",
            max(0.0, summary.oldest_undelivered_age_s or 0.0),
        ),
        family(
            "waybill_webhook_first_attempt_delay_seconds",
            "From an event to the first attempt to deliver it, of the newest 2,000 of the last 24 hours.", "gauge",
            ["quantile"], [([quantile], ms / 1000) for quantile, ms in delays_ms.items() if ms is not None],
        ),
    ]  # fmt: skip


def _of_endpoints(health: Health) -> list[Metric]:
    statuses = {name: count for name, count in health.endpoints.items() if name != "failing"}
    return [
        family(
            "waybill_webhook_circuits", "Queues of deliveries whose receiver is left alone, or tried again.", "gauge",
            ["state"], [(["open"], health.open), (["half_open"], health.half_open)],
        ),
        gauge("waybill_webhook_full_queues", "Queues that take no more deliveries.", health.full_queues),
        family(
            "waybill_webhook_endpoints", "Registered endpoints.", "gauge",
            ["status"], [([status], count) for status, count in statuses.items()],
        ),
        gauge(
            "waybill_webhook_failing_endpoints", "Active endpoints without a success since their first failure.",
            health.endpoints["failing"],
        ),
        family(
            "waybill_webhook_disabled_endpoints", "Disabled endpoints by what disabled them.", "gauge",
            ["reason"], [([reason], count) for reason, count in health.disabled.items()],
        ),
    ]  # fmt: skip


async def of_usage(tx: Tx) -> list[Metric]:
    """What ended jobs and calls came to."""
    used = await figures.used(tx)
    totals = [(_provider(sums), sums) for sums in used if sums.model is None]
    models = [([sums.model, *_provider(sums)], sums) for sums in used if sums.model is not None]
    jobs = [([outcome], sum(getattr(sums, f"jobs_{outcome}") for _, sums in totals)) for outcome in OUTCOMES]
    charged = sum(sums.credits_charged for _, sums in totals)
    return [
        family("waybill_jobs", "Jobs that ended.", "counter", ["outcome"], jobs),
        family("waybill_credits_charged", "Credits that teams were charged.", "counter", (), [((), charged)]),
        *_of_calls("waybill", "", ["provider"], totals),
        *_of_calls("waybill_model", ", by the alias or group asked for while it exists", ["model", "provider"], models),
    ]


def _provider(sums: Used) -> list[str]:
    return [sums.provider or NEVER_SENT]


def _of_calls(prefix: str, by: str, labels: Sequence[str], used: Sequence[tuple[list[str], Used]]) -> list[Metric]:
    """The metrics of calls, from sums with the values of these labels."""

    def counter(name: str, help_: str, kinds: Mapping[str, str], label: str) -> Metric:
        values = (([*names, kind], getattr(sums, of)) for names, sums in used for kind, of in kinds.items())
        return family(f"{prefix}_{name}", f"{help_}{by}.", "counter", [*labels, label], values)

    def cost(name: str, help_: str, of: str) -> Metric:
        values = ((names, getattr(sums, of) / NANO) for names, sums in used)
        return family(f"{prefix}_{name}_usd", f"{help_}, in USD{by}.", "counter", labels, values)

    latency = SummaryMetricFamily(
        f"{prefix}_call_latency_seconds", f"How long completed calls were with their provider{by}.", labels=labels
    )
    for names, sums in used:
        latency.add_metric(names, sums.calls_completed, sums.latency_sum_ms / 1000)
    return [
        counter("calls", "Calls that ended", {outcome: f"calls_{outcome}" for outcome in OUTCOMES}, "outcome"),
        counter("tokens", "Tokens of calls that ended", {kind: f"{kind}_tokens" for kind in TOKENS}, "kind"),
        cost("client_cost", "What teams pay for calls", "client_cost_nanousd"),
        cost("provider_cost", "What attempts cost us", "provider_cost_nanousd"),
        latency,
    ]
