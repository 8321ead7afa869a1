"""LiteLLM's key routes: what a key is made with, how it is changed, replaced, deleted and listed, what is refused."""

import re
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from shared import key_secrets
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, unique
from tests.api.gateway_keys import NOBODY_S, UNKNOWN, Keys, refused, status_of

INVALID = "invalid_request_error"
INFO = {
    "status", "key_alias", "key_name", "spend", "max_budget", "soft_budget", "budget_duration", "budget_reset_at",
    "expires", "models", "aliases", "user_id", "team_id", "organization_id", "permissions", "max_parallel_requests",
    "metadata", "tags", "blocked", "tpm_limit", "rpm_limit", "key_type", "allowed_routes", "created_at", "created_by",
    "updated_at", "updated_by", "last_active",
}  # fmt: skip


@pytest.fixture
def gateway(api: Api) -> Keys:
    return Keys(api)


async def test_a_key_is_shown_once_with_every_field_it_was_made_with(gateway: Keys):
    team = await gateway.api.team()
    sent = {
        "team_id": team["team_id"],
        "organization_id": team["organization_id"],
        "user_id": "ann",
        "key_alias": unique("alias"),
        "key": f"sk-{unique('own')}",
        "duration": "2h",
        "models": ["gpt-4"],
        "max_budget": 1.5,
        "soft_budget": 1.0,
        "budget_duration": "30d",
        "rpm_limit": 5,
        "tpm_limit": 0,
        "max_parallel_requests": 2,
        "key_type": "llm_api",
        "allowed_routes": ["/v1"],
        "metadata": {"a": 1},
        "tags": ["x"],
        "blocked": False,
        "permissions": {"allow_pii_controls": True},
        "aliases": {"mine": "gpt-4"},
        "guardrails": ["g"],
    }
    key = made(await gateway.post("/key/generate", sent))
    token = key_secrets.key_hash(sent["key"]).hex()
    assert key == {
        **sent,
        "key_name": f"sk-...{sent['key'][-4:]}",
        "token": token,
        "token_id": token,
        "expires": key["expires"],
        "spend": 0.0,
        "budget_reset_at": key["budget_reset_at"],
        "litellm_budget_table": None,
        "created_by": "admin_key",
        "updated_by": "admin_key",
        "created_at": key["created_at"],
        "updated_at": key["updated_at"],
        "status": "active",
        "last_active": None,
    }
    assert key["created_at"] < key["expires"] < key["budget_reset_at"]

    read = await gateway.get(f"/key/info?key={token}")
    assert sent["key"] not in read.text
    answer = made(read)
    assert answer["key"] == token
    assert set(answer["info"]) == INFO | {"guardrails"}
    assert answer["info"] == {name: value for name, value in key.items() if name in answer["info"]}


async def test_a_key_without_words_is_the_default_team_s_and_may_all_it_may(api: Api, runtime: Runtime):
    team = (await api.team())["team_id"]
    settings = runtime.settings.model_copy(update={"default_team": team})
    async with opened(replace(runtime, settings=settings)) as other:
        key = made(await Keys(other).post("/key/generate"))
        assert (key["team_id"], key["models"], key["allowed_routes"], key["key_type"]) == (team, [], [], "default")
        assert key["key"].startswith("sk-")
        assert len(key["key"]) == 46
        empty = {"models": [], "allowed_routes": [], "aliases": None, "tags": None, "metadata": None, "duration": None}
        more = made(await Keys(other).post("/key/generate", empty))
        assert (more["models"], more["tags"], more["metadata"], more["expires"]) == ([], [], {}, None)
        assert made(await other.get("/teams/verify", key=more["key"]))["team_id"] == team
    settings = runtime.settings.model_copy(update={"default_team": "nobody-s"})
    async with opened(replace(runtime, settings=settings)) as other:
        text = "team_id is needed: there is no default team 'nobody-s' on this server"
        assert refused(await Keys(other).post("/key/generate")) == (400, text, INVALID, "team_id", 400)


async def test_what_a_key_cannot_be_made_with_is_refused_at_its_field(gateway: Keys):
    team = (await gateway.api.team())["team_id"]
    wrong: list[tuple[str, Any]] = [
        *((name, value) for name in ("max_budget", "soft_budget") for value in (-1, "NaN", "Infinity", "-Infinity")),
        *((name, -1) for name in ("rpm_limit", "tpm_limit", "max_parallel_requests")),
        ("rpm_limit", 2**31),
        ("rpm_limit", 1.5),
        *((name, word) for name in ("duration", "budget_duration") for word in ("1y", "", "-1d", "0d", "5", "999999d")),
        ("key", "sk-12345678abcd"),
        ("key", "pk-1234567890abcdef"),
        ("key", "sk-1234567890 abcdef"),
        ("key_type", "root"),
        ("models", ["a b"]),
        ("allowed_routes", ["v1/models"]),
        ("aliases", {"a": ""}),
        ("tags", "x"),
        ("metadata", []),
        ("metadata", {"a": "x" * 10_240}),
        ("permissions", []),
        ("blocked", "perhaps"),
        ("user_id", ""),
    ]
    for field, value in wrong:
        status, message, type_, param, code = refused(
            await gateway.post("/key/generate", {"team_id": team, field: value})
        )
        assert (status, type_, param and re.split(r"[.\[]", param)[0], code) == (400, INVALID, field, 400), (
            field,
            value,
        )
        assert message.startswith(f"'{field}")
        assert field != "key" or message.endswith("must begin with sk- and have 16 to 255 visible ASCII characters")
    assert (await gateway.get("/key/list", team_id=team)).json()["total_count"] == 1


async def test_json_has_no_numbers_that_are_none(gateway: Keys):
    for text in ('{"max_budget": NaN}', '{"max_budget": Infinity}', '{"max_budget": 1e999}', "{", "[]"):
        answer = await gateway.api.client.post("/key/generate", content=text, headers=gateway.api.admin)
        assert refused(answer)[0::4] == (400, 400), text


async def test_alias_and_key_are_one_key_s_alone_and_teams_must_be_there(gateway: Keys):
    alias, own = unique("alias"), f"sk-{unique('own-key')}"
    team = await gateway.api.team()
    first = await gateway.generate(team_id=team["team_id"], key_alias=alias, key=own)
    for fields, text, param in (
        ({"key_alias": alias}, f"Key alias '{alias}' already exists", "key_alias"),
        ({"key": own}, "Virtual key already exists", "key"),
        ({"organization_id": "other"}, f"Team '{team['team_id']}' is not of this organization", "organization_id"),
    ):
        answer = refused(await gateway.post("/key/generate", {"team_id": team["team_id"], **fields}))
        assert answer == (400, text, INVALID, param, 400)
    answer = await gateway.post("/key/generate", {"team_id": "nobody"})
    assert refused(answer) == (404, "Team 'nobody' not found", "not_found_error", "team_id", 404)
    other = await gateway.generate(team_id=team["team_id"])
    answer = await gateway.post("/key/update", {"key": other["token"], "key_alias": alias})
    assert refused(answer)[:4] == (400, f"Key alias '{alias}' already exists", INVALID, "key_alias")
    made(await gateway.post("/key/delete", {"keys": [first["token"]]}))
    made(await gateway.post("/key/update", {"key": other["token"], "key_alias": alias}))


async def test_the_admin_key_is_nobody_s_virtual_key(runtime: Runtime):
    admin_key = f"sk-{unique('admin')}"
    settings = runtime.settings.model_copy(update={"admin_key": SecretStr(admin_key)})
    async with opened(replace(runtime, settings=settings)) as api:
        answer = refused(await Keys(api).post("/key/generate", {"key": admin_key}))
        assert answer == (400, "'key': must not be the admin key", INVALID, "key", 400)


async def test_fields_of_litellm_that_do_nothing_here_are_kept_and_shown(gateway: Keys):
    others = {"guardrails": ["g"], "model_max_budget": {"gpt-4": {"budget_limit": 1}}, "agent_id": None}
    key = await gateway.generate(**others, spend=9, token="x", status="y", created_by="eve")
    assert {name: key[name] for name in others} == others
    assert (key["spend"], key["status"], key["created_by"]) == (0.0, "active", "admin_key")
    assert key["token"] != "x"
    made(await gateway.post("/key/update", {"key": key["token"], "guardrails": None, "policies": ["p"]}))
    info = await gateway.info(key["token"])
    assert not {"guardrails", "token"} & set(info)
    assert (info["policies"], info["model_max_budget"]) == (["p"], others["model_max_budget"])

    half = {"key": key["token"], "big": "x" * 6000}
    made(await gateway.post("/key/update", half))
    for path, body in (
        ("/key/generate", {"big": "x" * 10_240}),
        ("/key/update", {"key": key["token"], "more": "x" * 6000}),
    ):
        answer = refused(await gateway.post(path, body))
        assert (answer[0], "fields that are not known exceed 10240 bytes" in answer[1]) == (400, True)


async def test_what_is_sent_changes_and_null_clears(gateway: Keys):
    sent = {
        "user_id": "ann",
        "models": ["m"],
        "rpm_limit": 1,
        "max_budget": 2,
        "budget_duration": "1mo",
        "duration": "1h",
    }
    key = await gateway.generate(**sent, tags=["a"], permissions={"p": True})
    changed = made(
        await gateway.post("/key/update", {"key": key["key"], "tpm_limit": 0, "soft_budget": 1, "aliases": {"a": "b"}})
    )
    assert changed["key"] == key["key_name"]
    assert key["key"] not in str(changed)
    assert {**changed["info"], "key": key["key_name"], "info": changed["info"]} == changed
    info = changed["info"]
    assert (info["tpm_limit"], info["soft_budget"], info["max_budget"], info["user_id"]) == (0, 1, 2, "ann")
    assert (info["aliases"], info["tags"], info["permissions"]) == ({"a": "b"}, ["a"], {"p": True})

    nulls = dict.fromkeys([*sent, "soft_budget", "tags", "blocked", "key_type"])
    cleared = made(await gateway.post("/key/update", {"key": key["token"], **nulls}))
    assert cleared["key"] == key["token"]
    for name in ("user_id", "rpm_limit", "max_budget", "soft_budget", "budget_duration", "budget_reset_at", "expires"):
        assert cleared[name] is None, name
    assert (cleared["models"], cleared["tags"], cleared["tpm_limit"], cleared["status"]) == ([], ["a"], 0, "active")

    for fields, param in (({"team_id": "other"}, "team_id"), ({"organization_id": "other"}, "organization_id")):
        assert refused(await gateway.post("/key/update", {"key": key["token"], **fields}))[::3] == (400, param)
    same = {"team_id": key["team_id"], "organization_id": key["organization_id"]}
    made(await gateway.post("/key/update", {"key": key["token"], **same}))
    assert refused(await gateway.post("/key/update", {"rpm_limit": 1})) == (
        400, "'key' is a required property", INVALID, "key", 400,
    )  # fmt: skip


async def test_a_soft_budget_waits_for_a_maximum(gateway: Keys):
    key = await gateway.generate(soft_budget=1.5, budget_duration="7d")
    before = (key["max_budget"], key["soft_budget"], key["budget_duration"], key["budget_reset_at"])
    assert before == (None, 1.5, "7d", None)
    for sent, shown in (
        ({"max_budget": 3}, (3, 1.5, "7d", True)),
        ({"max_budget": 0}, (0, 1.5, "7d", True)),
        ({"budget_duration": None}, (0, 1.5, None, False)),
        ({"max_budget": None}, (None, 1.5, None, False)),
        ({"soft_budget": None}, (None, None, None, False)),
    ):
        now = made(await gateway.post("/key/update", {"key": key["token"], **sent}))
        found = (now["max_budget"], now["soft_budget"], now["budget_duration"], now["budget_reset_at"] is not None)
        assert found == shown, sent
    made(await gateway.post("/key/update", {"key": key["token"], "soft_budget": 2}))
    made(await gateway.post("/key/update", {"key": key["token"], "max_budget": 3}))
    path = f"/teams/{key['team_id']}/keys"
    id_ = (await gateway.api.get(path)).json()[0]["key_id"]
    made(await gateway.api.send("PATCH", f"{path}/{id_}", {"max_budget": None}))
    assert (await gateway.info(key["token"]))["soft_budget"] is None


async def test_a_blocked_key_is_refused_until_it_is_unblocked(gateway: Keys, runtime: Runtime):
    key = await gateway.generate()
    assert await status_of(runtime, key["key"]) == (200, None)
    assert made(await gateway.post("/key/block", {"key": key["key"]}))["info"]["status"] == "blocked"
    assert await status_of(runtime, key["key"]) == (401, "key_blocked")
    assert made(await gateway.post("/key/unblock", {"key": key["token"]}))["blocked"] is False
    assert await status_of(runtime, key["key"]) == (200, None)


async def test_a_regenerated_key_keeps_everything_but_its_secret(gateway: Keys, runtime: Runtime):
    key = await gateway.generate(key_alias=unique("alias"), max_budget=3, rpm_limit=7, guardrails=["g"])
    new = made(await gateway.post("/key/regenerate", {"key": key["key"], "grace_s": 60}))
    differs = {name for name in key if key[name] != new[name]}
    assert differs == {"key", "key_name", "token", "token_id", "updated_at"}
    assert [(await status_of(runtime, secret))[0] for secret in (key["key"], new["key"])] == [200, 200]
    assert (await gateway.info(key["token"]))["key_name"] == new["key_name"]

    last = made(await gateway.post("/key/regenerate", {"key": new["token"]}))
    ended = [await status_of(runtime, secret) for secret in (key["key"], new["key"])]
    assert ended == [(401, 401), (401, 401)]
    assert (await status_of(runtime, last["key"]))[0] == 200
    assert refused(await gateway.get("/key/info?key=" + key["token"])) == UNKNOWN
    assert refused(await gateway.post("/key/regenerate", {"key": last["token"], "grace_s": -1}))[::3] == (
        400,
        "grace_s",
    )


async def test_keys_are_deleted_by_what_names_them(gateway: Keys, runtime: Runtime):
    team = (await gateway.api.team())["team_id"]
    alias = unique("alias")
    first, second, third, fourth = [await gateway.generate(team_id=team) for _ in range(3)] + [
        await gateway.generate(team_id=team, key_alias=alias)
    ]
    deleted = made(await gateway.post("/key/delete", {"keys": [first["key"], second["token"], NOBODY_S]}))
    assert sorted(deleted["deleted_keys"]) == sorted([first["token"], second["token"]])
    both = {"key_aliases": [alias, "nobody-s"], "keys": [fourth["key"], fourth["token"]]}
    assert made(await gateway.post("/key/delete", both)) == {"deleted_keys": [alias]}
    assert await status_of(runtime, first["key"]) == (401, 401)
    assert (await gateway.info(first["token"]))["status"] == "revoked"

    again = {"keys": [first["key"]], "key_aliases": [alias]}
    assert refused(await gateway.post("/key/delete", again)) == UNKNOWN
    answer = refused(await gateway.post("/key/delete", {}))
    assert answer == (400, "Either 'keys' or 'key_aliases' must be provided", INVALID, "keys", 400)
    for path in ("update", "block", "unblock", "regenerate"):
        assert refused(await gateway.post(f"/key/{path}", {"key": first["token"]})) == UNKNOWN
        assert refused(await gateway.post(f"/key/{path}", {"key": NOBODY_S})) == UNKNOWN
    assert (await gateway.info(third["token"]))["status"] == "active"


async def test_keys_are_listed_page_by_page(gateway: Keys):
    team, user = (await gateway.api.team())["team_id"], unique("user")
    gone, first, second = [await gateway.generate(team_id=team, user_id=user) for _ in range(3)]
    elsewhere = await gateway.generate(user_id=user)
    made(await gateway.post("/key/delete", {"keys": [gone["token"]]}))
    page = made(await gateway.get("/key/list", team_id=team, size=2))
    assert page == {
        "keys": [second["token"], first["token"]], "total_count": 3, "current_page": 1, "total_pages": 2,
    }  # fmt: skip
    page = made(await gateway.get("/key/list", team_id=team, size=2, page=2, return_full_object=True))
    assert (len(page["keys"]), page["keys"][0]["team_id"], page["current_page"]) == (1, team, 2)
    page = made(await gateway.get("/key/list", user_id=user))
    assert page["keys"] == [elsewhere["token"], second["token"], first["token"]]
    assert made(await gateway.get("/key/list", user_id=user, team_id=team))["total_count"] == 2
    assert made(await gateway.get("/key/list", team_id="nobody"))["total_pages"] == 0
    for name, value in (("size", 101), ("size", 0), ("page", 0), ("page", "x")):
        assert refused(await gateway.get("/key/list", **{name: value}))[::3] == (400, name)
