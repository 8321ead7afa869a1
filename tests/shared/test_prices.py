"""Prices: the alias's own, else the bundled map's by exact name, else none at all."""

from pathlib import Path

import orjson
import pytest

from shared.prices import Price, PriceMap

MAP = {
    "gpt-x": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "cache_read_input_token_cost": 5e-7,
              "max_output_tokens": 99},
    "openai/gpt-y": {"input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6},
    "image-model": {"output_cost_per_image": 0.04},
}  # fmt: skip
NONE = {"input_": None, "output": None, "cached_input": None}


@pytest.fixture
def map_(tmp_path: Path) -> PriceMap:
    file = tmp_path / "prices.json"
    file.write_bytes(orjson.dumps(MAP))
    return PriceMap.load(file)


def test_bundled_price_is_found_by_name_with_or_without_its_provider(map_: PriceMap):
    found = map_.price("openai/gpt-x", **NONE)
    assert found == Price(
        input=1_000_000_000, output=2_000_000_000, cached_input=500_000_000, source="bundled", version=map_.version
    )
    assert map_.price("openai/gpt-y", **NONE) is not None
    assert map_.version.startswith("litellm-")


@pytest.mark.parametrize(
    "name", ["openai/gpt", "openai/gpt-x-2026", "openai/GPT-X", "azure/openai/gpt-x", "image-model", ""]
)
def test_nothing_is_priced_by_a_part_of_its_name(map_: PriceMap, name: str):
    assert map_.price(name, **NONE) is None


def test_cached_tokens_cost_as_much_as_others_where_nobody_says_otherwise(map_: PriceMap):
    found = map_.price("openai/gpt-y", **NONE)
    assert found is not None
    assert found.cached_input == found.input


def test_the_aliass_own_price_goes_before_the_bundled_one(map_: PriceMap):
    own = map_.price("openai/gpt-x", input_=5, output=None, cached_input=None)
    assert own == Price(input=5, output=0, cached_input=5, source="alias")
    free = map_.price("openai/gpt-x", input_=0, output=0, cached_input=None)
    assert free == Price(input=0, output=0, cached_input=0, source="alias")


def test_a_cost_counts_every_class_of_token_once():
    price = Price(input=10_000_000, output=30_000_000, cached_input=1_000_000, source="alias")
    cost = price.cost_nanousd(prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    assert cost == 600 * 10 + 400 * 1 + 100 * 30


def test_the_map_of_the_pinned_litellm_prices_known_models(prices: PriceMap):
    assert prices.price("openai/gpt-4o", **NONE) is not None
    assert prices.price("openai/no-such-model", **NONE) is None


def test_without_a_map_nothing_is_priced():
    assert PriceMap({}, "none").price("openai/gpt-4o", **NONE) is None
