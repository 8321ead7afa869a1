"""The demo team: made once, repaired when something of it is lost, nothing of the user's touched."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.banner import banner
from cli.config import Config
from cli.home import Home
from cli.seed import Demo, SeedFailed, seed_demo
from tests.cli.small_admin_api import ADMIN_KEY, Books, serving

PROVIDER = "http://127.0.0.1:4000/v1"


@pytest.fixture
def books() -> Iterator[Books]:
    with serving() as books:
        yield books


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def seed(books: Books, home: Home, provider: str = PROVIDER, **environ: str) -> Demo:
    return seed_demo(books.url, ADMIN_KEY, provider, home, environ)


def test_the_team_its_models_and_its_key_are_made(books: Books, home: Home) -> None:
    demo = seed(books, home)

    team = books.rows["/api/teams/acme-corp"]
    assert team["virtual_key"] == demo.virtual_key
    assert team["access_groups"] == ["demo-models", "openai-models", "anthropic-models"]
    assert team["credits_allocated"] == 1000
    for alias in ("gpt-4", "text-embedding-ada-002"):
        row = books.rows[f"/api/model-aliases/{alias}"]
        assert (row["api_base"], row["litellm_model"], row["access_groups"]) == (
            PROVIDER,
            f"openai/{alias}",
            ["demo-models"],
        )
    assert "/api/teams/default" in books.rows
    assert json.loads(home.demo.read_text())["virtual_key"] == demo.virtual_key
    assert stat.S_IMODE(home.demo.stat().st_mode) == 0o600


def test_a_repeat_writes_nothing_and_tells_the_same_key(books: Books, home: Home) -> None:
    first = seed(books, home)
    books.writes.clear()

    assert seed(books, home) == first

    assert books.writes == []


def test_demo_aliases_follow_a_provider_that_moved(books: Books, home: Home) -> None:
    seed(books, home)

    seed(books, home, "http://127.0.0.1:4001/v1")

    assert books.rows["/api/model-aliases/gpt-4"]["api_base"] == "http://127.0.0.1:4001/v1"


def test_an_alias_that_the_user_pointed_elsewhere_stays(books: Books, home: Home) -> None:
    seed(books, home)
    books.rows["/api/model-aliases/gpt-4"]["api_base"] = "https://llm.example/v1"

    seed(books, home, "http://127.0.0.1:4001/v1")

    assert books.rows["/api/model-aliases/gpt-4"]["api_base"] == "https://llm.example/v1"


def test_a_home_that_lost_its_key_gets_another(books: Books, home: Home) -> None:
    seed(books, home)
    home.demo.unlink()

    demo = seed(books, home)

    assert demo.virtual_key == "sk-rotated"
    assert json.loads(home.demo.read_text())["virtual_key"] == "sk-rotated"


def test_a_provider_key_in_the_environment_adds_real_models(books: Books, home: Home) -> None:
    seed(books, home)

    demo = seed(books, home, OPENAI_API_KEY="sk-of-the-provider")

    assert "gpt-4o" in demo.real_models
    row = books.rows["/api/model-aliases/gpt-4o"]
    assert row["litellm_model"] == "openai/gpt-4o"
    assert "api_key" not in row
    assert row["access_groups"] == ["openai-models"]
    assert "openai-models" in books.rows["/api/teams/acme-corp"]["access_groups"]
    assert "sk-of-the-provider" not in json.dumps(books.rows)


def test_models_of_a_key_that_is_gone_are_off_until_it_is_back(books: Books, home: Home) -> None:
    seed(books, home, OPENAI_API_KEY="sk-of-the-provider")

    without = seed(books, home)

    assert not books.rows["/api/model-aliases/gpt-4o"]["active"]
    assert books.rows["/api/model-aliases/gpt-4"]["active"]
    assert "gpt-4o" in without.off_models["OPENAI_API_KEY"]
    assert without.real_models == []
    books.writes.clear()
    assert seed(books, home) == without
    assert books.writes == []

    again = seed(books, home, OPENAI_API_KEY="sk-of-the-provider")

    assert books.rows["/api/model-aliases/gpt-4o"]["active"]
    assert again.off_models == {}
    assert "gpt-4o" in again.real_models


def test_aliases_of_the_user_are_neither_switched_off_nor_on(books: Books, home: Home) -> None:
    path = "/api/model-aliases/gpt-4o"
    books.rows[path] = {"alias": "gpt-4o", "active": True, "has_api_key": False}
    seed(books, home, OPENAI_API_KEY="sk-of-the-provider")
    books.rows["/api/model-aliases/gpt-4.1"]["has_api_key"] = True
    books.rows["/api/model-aliases/gpt-4o-mini"]["active"] = False

    demo = seed(books, home)

    assert books.rows[path]["active"]
    assert books.rows["/api/model-aliases/gpt-4.1"]["active"]
    assert not {"gpt-4o", "gpt-4.1", "gpt-4o-mini"} & set(demo.off_models["OPENAI_API_KEY"])
    seed(books, home, OPENAI_API_KEY="sk-of-the-provider")
    assert not books.rows["/api/model-aliases/gpt-4o-mini"]["active"]


def test_the_banner_tells_what_is_off_and_why(home: Home) -> None:
    demo = Demo("sk-demo", ["gpt-4"], [], {"OPENAI_API_KEY": ["gpt-4o", "gpt-4.1"]})
    config = Config.read({})
    env = config.product_env(home, home.load_keys(), "postgresql://db/waybill", "redis://redis/0")

    assert "switched off gpt-4o, gpt-4.1 (until OPENAI_API_KEY is set)" in banner(config, home, env, demo)


def test_a_group_that_the_team_lost_is_given_back(books: Books, home: Home) -> None:
    seed(books, home)
    books.rows["/api/teams/acme-corp"]["access_groups"] = ["own-models"]

    seed(books, home)

    held = books.rows["/api/teams/acme-corp"]["access_groups"]
    assert held == ["own-models", "demo-models", "openai-models", "anthropic-models"]


@pytest.mark.parametrize("gone", ["/api/teams/acme-corp", "/api/organizations/acme"])
def test_a_demo_team_that_was_deleted_is_left_alone(books: Books, home: Home, gone: str) -> None:
    seed(books, home)
    books.delete(gone)
    books.rows.pop("/api/teams/acme-corp", None)

    demo = seed(books, home)

    assert (demo.virtual_key, demo.demo_models) == (None, ["gpt-4", "text-embedding-ada-002"])
    assert "/api/teams/acme-corp" not in books.rows
    config = Config.read({})
    told = banner(config, home, config.product_env(home, home.load_keys(), "postgresql://db/w", "redis://r/0"), demo)
    assert "acme-corp was deleted and is not made again" in told
    assert "Try it" not in told


def test_without_the_default_team_the_demo_team_is_as_before(books: Books, home: Home) -> None:
    first = seed(books, home)
    books.delete("/api/teams/default")

    assert seed(books, home) == first


def test_a_refusal_is_told_with_its_route(books: Books, home: Home) -> None:
    with pytest.raises(SeedFailed, match="/api/organizations/acme answered 401"):
        seed_demo(books.url, "a-wrong-key", PROVIDER, home, {})
