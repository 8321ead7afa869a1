"""/metrics as Prometheus reads it."""

from collections.abc import Iterable
from typing import Any

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.readings import Readings
from tests.scene import Scene

PATH = "/metrics"


class Series(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Values by name and labels."""

    def of(self, name: str, **labels: str) -> float:
        """The value of one series; one that is not there has none."""
        return self[name, frozenset(labels.items())]

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """The series of this name by the values of their labels, in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(labels)): number
            for (own, labels), number in self.items()
            if own == name
        }  # fmt: skip

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self}

    @property
    def labels(self) -> set[tuple[str, str]]:
        """Every label with every value it has."""
        return {label for _, labels in self for label in labels}


def series_of(families: Iterable[Metric]) -> Series:
    """Each series once."""
    samples = [sample for family in families for sample in family.samples]
    found = Series({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})
    assert len(found) == len(samples)
    return found


async def scraped(client: httpx.AsyncClient, **headers: str) -> Series:
    """The page of an app."""
    answer = await client.get(PATH, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return series_of(text_string_to_metric_families(answer.text))


async def read_anew(scene: Scene, **limits: Any) -> Series:
    """What is read at a scrape, as it is now."""
    readings = Readings(scene.rt, **limits)
    try:
        return series_of(await readings.now())
    finally:
        await readings.close()


def grown(before: Series, after: Series, name: str, **labels: str) -> float:
    """By how much a series grew; one that was not there began at 0."""
    return after.of(name, **labels) - before.get((name, frozenset(labels.items())), 0)
