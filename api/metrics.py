"""What this process measures of itself, and the page of /metrics. A registry for each app, none for the program."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from shared.settings import VERSION

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
NO_ROUTE = "none"
"""What a client can make up has one name, however often it is made up."""

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""From a read to a call that is waited for: 600 s are the most."""

# A second series for each counter, which nobody reads.
disable_created_metrics()


class Requests:
    """The requests of this process: how many there were, how long they took, how many are open.

    registry: where they are shown; None: nowhere.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._count = Counter(
            "waybill_http_requests",
            "Requests that this process answered. Status 499: the client did not wait for its answer.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "waybill_http_request_duration_seconds",
            "From a request's head to the end of its answer; of a stream to its end.",
            ("method", "route"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._open = 0
        Gauge("waybill_http_requests_in_progress", "Requests under way, streams too.", registry=registry).set_function(
            lambda: self._open
        )
        self._streams = Gauge(
            "waybill_open_streams", "Answers under way that are sent as they come.", ("route",), registry=registry
        )
        # To look a series up by its labels costs more than to count.
        self._known: dict[tuple[str, str | None, int], tuple[Counter, Histogram]] = {}

    def begin(self) -> None:
        """A request came."""
        self._open += 1

    def end(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """It was answered, or its client has gone. route: with its parameters' names; None: no route took it."""
        self._open -= 1
        series = self._known.get((method, route, status))
        if series is None:
            series = self._series(method, route, status)
        count, timed = series
        count.inc()
        timed.observe(seconds)

    def begin_stream(self, route: str | None) -> None:
        """An answer began that is sent as it comes."""
        self._streams.labels(route or NO_ROUTE).inc()

    def end_stream(self, route: str | None) -> None:
        """It ended."""
        self._streams.labels(route or NO_ROUTE).dec()

    def _series(self, method: str, route: str | None, status: int) -> tuple[Counter, Histogram]:
        known = method if method in METHODS else OTHER_METHOD
        names = (known, route or NO_ROUTE)
        series = (self._count.labels(*names, str(status)), self._seconds.labels(*names))
        if known == method:
            self._known[method, route, status] = series
        return series


class Metrics:
    """Of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        Info("waybill", "This process.", registry=self._registry).info({"version": VERSION})
        self.requests = Requests(self._registry)

    def page(self, accept: str, more: Sequence[Metric]) -> tuple[bytes, str]:
        """All of it with `more`, as text in the form that this Accept header asks for, and that form's media type."""
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # A version that is no number, which the library does not expect.
            encode, media_type = choose_encoder("")
        return encode(_Page(self._registry, more)), media_type


class _Page:
    """What the library's encoders ask for."""

    def __init__(self, registry: CollectorRegistry, more: Sequence[Metric]) -> None:
        self._registry = registry
        self._more = more

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._more


def gauge(name: str, help_: str, value: float) -> Metric:
    """A gauge with one series."""
    return family(name, help_, "gauge", (), [((), value)])


def family(
    name: str, help_: str, type_: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    """A family of series as they were read. type_: gauge or counter, whose series end in `_total`."""
    found = Metric(name, help_, type_)
    suffix = "_total" if type_ == "counter" else ""
    for given, value in values:
        found.add_sample(name + suffix, dict(zip(labels, given, strict=True)), value)
    return found
