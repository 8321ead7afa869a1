"""What LiteLLM's clients read of users, teams and costs: each caller what is theirs, and nothing is booked for it."""

from typing import Any

import pytest

from tests.api.admin import Api, made, unique
from tests.api.gateway_keys import Keys, refused
from tests.api.people import person
from tests.scene import COST_NANOUSD, HELLO, Scene, Team

INVALID = "invalid_request_error"
MARKUP = 50


@pytest.fixture
def gateway(api: Api) -> Keys:
    return Keys(api)


async def paid_call(scene: Scene, team: Team, key: str) -> float:
    """A call of this key that was answered; what it cost the team, in USD."""
    with_key = Team(scene=scene, id=team.id, key=key, models=team.models)
    job = await with_key.job(calls=[{"messages": HELLO}])
    await scene.work_on(job["calls"][0]["call_id"])
    return COST_NANOUSD * (1 + MARKUP / 100) / 10**9


async def test_a_user_is_whom_keys_carry_in_the_caller_s_organization(scene: Scene):
    scene.live = False
    gateway, user = Keys(scene.api), unique("user")
    team = await scene.team(cost_markup_percentage=MARKUP)
    organization = (await gateway.api.get(f"/teams/{team.id}")).json()["organization_id"]
    sister = await gateway.api.team(organization_id=organization, team_alias="Sister")
    first = await gateway.generate(team_id=team.id, user_id=user, guardrails=["g"])
    second = await gateway.generate(team_id=sister["team_id"], user_id=user)
    elsewhere = await gateway.generate(user_id=user)
    gone = await gateway.generate(team_id=team.id, user_id=user)
    cost = await paid_call(scene, team, first["key"]) + await paid_call(scene, team, gone["key"])
    left = await gateway.api.team(organization_id=organization)
    gone_too = await gateway.generate(team_id=left["team_id"], user_id=user)
    made(await gateway.post("/key/delete", {"keys": [gone["token"], gone_too["token"]]}))

    answer = await gateway.get("/user/info", key=first["key"])
    read = made(answer)
    assert read == made(await gateway.get("/user/info", key=second["key"], user_id=user))
    assert read == {
        "user_id": user,
        "user_info": {
            "user_id": user,
            "user_alias": None,
            "user_email": None,
            "user_role": "internal_user",
            "teams": sorted([team.id, sister["team_id"]]),
            "max_budget": None,
            "spend": cost,
            "models": [],
            "metadata": {},
            "tpm_limit": None,
            "rpm_limit": None,
            "created_at": first["created_at"],
        },
        "keys": read["keys"],
        "teams": sorted(
            [
                {"team_id": team.id, "team_alias": None, "organization_id": organization},
                {"team_id": sister["team_id"], "team_alias": "Sister", "organization_id": organization},
            ],
            key=lambda found: str(found["team_id"]),
        ),
    }
    assert [key["token"] for key in read["keys"]] == [second["token"], first["token"]]
    assert read["keys"][1] == await gateway.info(first["token"]) | {"token": first["token"]}
    assert first["key"] not in answer.text
    assert elsewhere["team_id"] not in answer.text

    whole = made(await gateway.get("/user/info", user_id=user))
    assert elsewhere["team_id"] in whole["user_info"]["teams"]
    assert [key["token"] for key in whole["keys"]] == [elsewhere["token"], second["token"], first["token"]]
    page = made(await gateway.get("/user/info", user_id=user, key_limit=1, key_offset=1))
    assert [key["token"] for key in page["keys"]] == [second["token"]]
    assert made(await gateway.get("/user/info", user_id=user, key_limit=0))["keys"] == []


async def test_a_user_is_not_shown_to_others(gateway: Keys):
    user = unique("user")
    key, nameless = await gateway.generate(user_id=user), await gateway.generate()
    for asking in (nameless, await gateway.generate(team_id=key["team_id"], user_id=unique("other"))):
        answer = refused(await gateway.get("/user/info", key=asking["key"], user_id=user))
        assert answer == (403, "Cannot access a different user", "permission_error", "user_id", 403)
    for asking in (None, nameless["key"]):
        assert refused(await gateway.get("/user/info", key=asking))[::3] == (400, "user_id")
    text = "User nobody not found"
    assert refused(await gateway.get("/user/info", user_id="nobody")) == (404, text, "not_found_error", "user_id", 404)
    assert refused(await gateway.get("/user/info", user_id=user, key_limit=101))[::3] == (400, "key_limit")


async def test_an_admin_user_is_a_user_for_admins(scene: Scene):
    gateway = Keys(scene.api)
    for role, said in (("owner", "proxy_admin"), ("user", "proxy_admin_viewer")):
        admin = await person(scene, role)
        found = made(await gateway.get("/user/info", key=admin.token, user_id=admin.id))
        info = found["user_info"]
        assert (info["user_alias"], info["user_email"], info["user_role"]) == ("Ann", admin.email, said)
        assert (info["spend"], info["teams"], found["keys"], found["teams"]) == (0.0, [], [], [])
    key = await gateway.generate(user_id=admin.id)
    info = made(await gateway.get("/user/info", key=key["key"]))["user_info"]
    assert (info["user_email"], info["user_role"]) == (None, "internal_user")
    assert made(await gateway.get("/user/info", user_id=admin.id))["user_info"]["teams"] == [key["team_id"]]


async def test_a_team_is_read_by_its_keys_and_admins(scene: Scene):
    scene.live = False
    gateway = Keys(scene.api)
    limits = {"rpm_limit": 60, "tpm_limit": 60_000, "max_budget_usd": 5, "metadata": {"a": 1}, "team_alias": "Acme"}
    team = await scene.team(credits=100, cost_markup_percentage=MARKUP, **limits)
    key, gone = [await gateway.generate(team_id=team.id) for _ in range(2)]
    made(await gateway.post("/key/delete", {"keys": [gone["token"]]}))
    cost = await paid_call(scene, team, key["key"])
    answer = await gateway.get("/team/info", key=key["key"], team_id=team.id)
    read = made(answer)
    assert key["key"] not in answer.text
    assert read == {
        "team_id": team.id,
        "team_info": {
            "team_id": team.id,
            "team_alias": "Acme",
            "organization_id": key["organization_id"],
            "spend": cost,
            "max_budget": 5.0,
            "tpm_limit": 60_000,
            "rpm_limit": 60,
            "models": list(team.models),
            "metadata": {"a": 1},
            "blocked": False,
            "members_with_roles": [],
            "admins": [],
            "members": [],
            "credits_remaining": (await team.credits())[0],
            "created_at": read["team_info"]["created_at"],
        },
        "keys": read["keys"],
        "team_memberships": [],
    }
    assert read["keys"][0] == await gateway.info(key["token"]) | {"token": key["token"]}
    assert (len(read["keys"]), read["keys"][0]["spend"]) == (2, cost)
    assert [row["token"] for row in made(await gateway.get("/team/info", team_id=team.id, key_limit=1))["keys"]] == [
        key["token"]
    ]
    made(await gateway.api.post(f"/teams/{team.id}/suspend"))
    assert made(await gateway.get("/team/info", team_id=team.id))["team_info"]["blocked"] is True


async def test_a_team_that_is_not_the_caller_s_is_refused(gateway: Keys):
    key, other = await gateway.generate(), await gateway.generate()
    for team_id in (other["team_id"], "nobody"):
        answer = refused(await gateway.get("/team/info", key=key["key"], team_id=team_id))
        assert answer == (403, "Cannot access a different team", "permission_error", "team_id", 403)
    text = "Team not found, passed team id: x/y"
    assert refused(await gateway.get("/team/info", team_id="x/y")) == (404, text, "not_found_error", "team_id", 404)
    text = "'team_id' is a required property"
    assert refused(await gateway.get("/team/info", key=key["key"])) == (400, text, INVALID, "team_id", 400)
    assert refused(await gateway.get("/team/info", team_id=key["team_id"], key_limit=101))[::3] == (400, "key_limit")


async def test_a_cost_is_the_team_s_with_its_markup_and_the_provider_s_for_admins(scene: Scene):
    """The aliases' prices are 10 and 30 USD, and 5 for cached ones, per million tokens."""
    gateway = Keys(scene.api)
    team = await scene.team(cost_markup_percentage=MARKUP, alias={"pricing_cached_input": 5})
    model = team.models[0]
    narrow = await gateway.generate(team_id=team.id, aliases={"mine": model}, models=[model])
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    answered = {"id": "chatcmpl-1", "model": model, "usage": usage, "choices": []}
    books = (
        "select count(*) as n from calls where team_id = :id union all select count(*) from jobs where team_id = :id"
    )
    asked: list[tuple[str, str, Any, float]] = [
        ("GET", f"/spend/calculate?model={model}&prompt_tokens=1000&completion_tokens=100", None, 0.013),
        ("GET", f"/spend/calculate?model={model}", None, 0.0),
        ("POST", "/spend/calculate", {"model": model, "messages": HELLO}, 0.00011),
        ("POST", "/spend/calculate", {"completion_response": answered}, 0.011),
        ("POST", "/spend/calculate", {"model": model, "completion_response": {"usage": {"prompt_tokens": 1000}}}, 0.01),
    ]
    for method, path, body, cost in asked:
        assert made(await gateway.send(method, path, body)) == {"cost": cost}, path
        for key in (team.key, narrow["key"]):
            assert made(await gateway.send(method, path, body, key=key)) == {"cost": round(cost * 1.5, 9)}, path
    mine = await gateway.get("/spend/calculate", key=narrow["key"], model="mine", prompt_tokens=1000)
    assert made(mine) == {"cost": 0.015}
    assert [row.n for row in await scene.rows(books, id=team.id)] == [0, 0]
    assert await team.credits() == (1000, 0, 1000)
    assert scene.provider.asked == []


async def test_a_cost_that_is_not_known_is_refused(scene: Scene):
    gateway = Keys(scene.api)
    team, other = await scene.team(), await scene.team()
    free = await scene.team(alias={"litellm_model": "openai/of-no-price", "allow_unpriced": True, "pricing_input": None,
                                   "pricing_output": None})  # fmt: skip
    narrow = await gateway.generate(team_id=team.id, models=["another"])
    either, needed = (
        "Either 'model' or 'completion_response' must be provided",
        "messages must be provided if 'model' is provided",
    )
    for body, text, param in (
        ({}, either, "model"),
        ({"messages": HELLO}, either, "model"),
        ({"completion_response": {"usage": {}}}, either, "model"),
        ({"model": "x"}, needed, "messages"),
    ):
        for key in (None, team.key):
            answer = refused(await gateway.post("/spend/calculate", body, key=key))
            assert answer == (400, text, INVALID, param, 400)
    assert refused(await gateway.get("/spend/calculate", key=team.key))[1] == either
    answers = [await gateway.get("/spend/calculate", key=key, model="no-such-model") for key in (None, team.key)]
    answers.append(await gateway.post("/spend/calculate", {"model": free.models[0], "messages": []}, key=free.key))
    for answer in answers:
        assert refused(answer) == (400, "model has no price", INVALID, "model", "model_unpriced")
    for key, model, code in (
        (team.key, other.models[0], "team_model_access_denied"),
        (narrow["key"], team.models[0], "key_model_access_denied"),
    ):
        answer = await gateway.get("/spend/calculate", key=key, model=model)
        assert refused(answer)[::2] == (403, "permission_error", code)
        assert other.id not in answer.text
    for name, value in (("prompt_tokens", -1), ("completion_tokens", 2**31), ("prompt_tokens", "x")):
        assert refused(await gateway.get("/spend/calculate", model="gpt-4o", **{name: value}))[::3] == (400, name)
    for body, place in (
        ({"completion_response": {"model": "gpt-4o"}}, "completion_response.usage"),
        ({"model": "gpt-4o", "messages": "x"}, "messages"),
    ):
        assert refused(await gateway.post("/spend/calculate", body))[::3] == (400, place)


async def test_a_provider_s_own_name_has_its_public_price(scene: Scene):
    gateway = Keys(scene.api)
    team = await scene.team(cost_markup_percentage=100)
    price = scene.rt.prices.price("gpt-4o", input_=None, output=None, cached_input=None)
    assert price is not None
    for key, times in ((None, 1), (team.key, 2)):
        found = made(await gateway.get("/spend/calculate", key=key, model="gpt-4o", prompt_tokens=10**6))
        assert found["cost"] == times * price.input / 10**9


async def test_a_repeated_question_of_cost_is_answered_from_the_first(scene: Scene):
    gateway = Keys(scene.api)
    team = await scene.team()
    body = {"model": team.models[0], "messages": HELLO}
    answers = [await gateway.post("/spend/calculate", body, key=team.key, Idempotency_Key="k") for _ in range(2)]
    assert made(answers[0]) == made(answers[1])
    assert answers[1].headers["idempotent-replayed"] == "true"
