"""Prices: the alias's own, else the map bundled with the pinned litellm, read as data; exact names only."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from shared import money
from shared.providers import PROVIDERS

BUNDLED_FILE = "model_prices_and_context_window_backup.json"
USD_PER_TOKEN_TO_PER_MTOK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Price:
    """Nano-dollars per one million tokens, with where the numbers came from."""

    input: int
    output: int
    cached_input: int
    source: str
    version: str | None = None

    def cost_nanousd(self, *, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> int:
        """What these tokens cost. Cached ones are part of prompt_tokens, reasoning ones of completion_tokens."""
        uncached = max(0, prompt_tokens - cached_tokens)
        return money.cost_nanousd(
            uncached * self.input + cached_tokens * self.cached_input + completion_tokens * self.output
        )

    def most_nanousd(self, *, prompt_tokens: int, completion_tokens: int) -> int:
        """What so many tokens cost at most, however many of them were cached."""
        return money.cost_nanousd(prompt_tokens * max(self.input, self.cached_input) + completion_tokens * self.output)


UNPRICED = Price(input=0, output=0, cached_input=0, source="unpriced")


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """What the bundled map says of one model."""

    input: int
    output: int
    cached_input: int | None
    max_output_tokens: int | None
    provider: str | None
    mode: str | None = None
    max_input_tokens: int | None = None


class Priceable(Protocol):
    """An alias, a candidate, or a row that names one: its model, and its own price where it has one."""

    @property
    def litellm_model(self) -> str: ...

    @property
    def input_nanousd_per_mtok(self) -> int | None: ...

    @property
    def output_nanousd_per_mtok(self) -> int | None: ...

    @property
    def cached_input_nanousd_per_mtok(self) -> int | None: ...


class PriceMap:
    """The bundled map, reduced to what prices a call."""

    def __init__(self, models: dict[str, Bundled], version: str) -> None:
        self._models = models
        self.version = version

    @classmethod
    def load(cls, path: Path | None = None) -> "PriceMap":
        """Read the JSON at `path`, or the one inside the installed litellm (found without importing it)."""
        file = path or bundled_file()
        if file is None:
            return cls({}, "none")
        raw = file.read_bytes()
        models = {name: found for name, entry in orjson.loads(raw).items() if (found := _bundled(entry)) is not None}
        return cls(models, "litellm-" + hashlib.sha256(raw).hexdigest()[:12])

    def of(self, litellm_model: str) -> Bundled | None:
        """The entry with exactly this name, else with its provider prefix left out."""
        return self._models.get(litellm_model) or self._models.get(litellm_model.partition("/")[2])

    def price_of(self, alias: Priceable) -> Price | None:
        """The price of an alias, see `price`."""
        return self.price(
            alias.litellm_model,
            input_=alias.input_nanousd_per_mtok,
            output=alias.output_nanousd_per_mtok,
            cached_input=alias.cached_input_nanousd_per_mtok,
        )

    def price(
        self, litellm_model: str, *, input_: int | None, output: int | None, cached_input: int | None
    ) -> Price | None:
        """The price of an alias: its own numbers where it has any, else the bundled ones, else None (unpriced)."""
        if input_ is not None or output is not None:
            own = input_ or 0
            return Price(
                input=own,
                output=output or 0,
                cached_input=own if cached_input is None else cached_input,
                source="alias",
            )
        found = self.of(litellm_model)
        if found is None:
            return None
        cached = found.input if found.cached_input is None else found.cached_input
        return Price(
            input=found.input, output=found.output, cached_input=cached, source="bundled", version=self.version
        )


def bundled_file() -> Path | None:
    """Where the installed litellm keeps its price map; None when litellm is not installed."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / BUNDLED_FILE
    return file if file.exists() else None


def _bundled(entry: dict[str, Any]) -> Bundled | None:
    per_input, per_output = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if not isinstance(per_input, int | float) or not isinstance(per_output, int | float):
        return None
    cached = entry.get("cache_read_input_token_cost")
    mode = entry.get("mode")
    return Bundled(
        input=_per_mtok(per_input),
        output=_per_mtok(per_output),
        cached_input=_per_mtok(cached) if isinstance(cached, int | float) else None,
        max_output_tokens=_tokens(entry, "max_output_tokens"),
        provider=_provider(str(entry.get("litellm_provider"))),
        mode=mode if isinstance(mode, str) else None,
        max_input_tokens=_tokens(entry, "max_input_tokens"),
    )


def _tokens(entry: dict[str, Any], name: str) -> int | None:
    found = entry.get(name)
    return found if isinstance(found, int) else None


def _provider(word: str) -> str | None:
    """Ours for the map's word, which may say more (`vertex_ai-language-models`)."""
    return next((provider for provider in PROVIDERS if word == provider or word.startswith(f"{provider}-")), None)


def _per_mtok(usd_per_token: float) -> int:
    return money.nanousd_per_mtok(usd_per_token * USD_PER_TOKEN_TO_PER_MTOK) or 0
