"""Which models a call may try: the decision alone, then with the statement on a real database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadRequest, Forbidden, KeyModelDenied, NotFound, TeamModelDenied, UnknownModel, WaybillError
from shared.models import Candidate, Found, decide, resolve
from shared.runtime import Runtime
from tests.api.admin import Api, opened, unique


def candidate(alias: str) -> Candidate:
    return Candidate(
        alias=alias,
        litellm_model=f"openai/{alias}",
        provider="openai",
        input_nanousd_per_mtok=None,
        output_nanousd_per_mtok=None,
        cached_input_nanousd_per_mtok=None,
        allow_unpriced=False,
        max_output_tokens=None,
        has_key=False,
        api_base=None,
    )


def row(
    role: str | None = None,
    alias: str = "m",
    *,
    name: str | None = "m",
    active: bool = True,
    held: bool | None = True,
    group: str | None = None,
    group_held: bool = False,
) -> Found:
    found = None if role is None else candidate(alias)
    return Found(name, group, group_held, role, held if role else None, active if role else None, found)


def tried(found: list[Found], asked: str | None = "m") -> list[str]:
    return [candidate.alias for candidate in decide("t", asked, found).candidates]


NO_ALIAS = "Team 't' does not have access to model alias 'm'"
NO_GROUP = "Team 't' does not have access to model group 'm'"
UNKNOWN = "Model group 'm' not found or inactive"
EMPTY = "No active models configured for group 'm'"


@pytest.mark.parametrize(
    ("found", "aliases"),
    [
        ([row("alias")], ["m"]),
        ([row("alias"), row("fallback", "b"), row("fallback", "c")], ["m", "b", "c"]),
        ([row("alias"), row("fallback", "b", active=False), row("fallback", "c")], ["m", "c"]),
        ([row("alias"), row("fallback", "m"), row("fallback", "b"), row("fallback", "b")], ["m", "b"]),
    ],
)
def test_an_alias_comes_first_then_its_active_fallbacks_once_each(found: list[Found], aliases: list[str]):
    assert tried(found) == aliases


def held_group(*members: Found) -> list[Found]:
    return [member._replace(group_status="active", group_held=True) for member in members]


def test_a_held_group_gives_its_active_members_in_order():
    members = held_group(row("member", "b"), row("member", "off", active=False), row("member", "a"))
    assert tried(members) == ["b", "a"]


def test_an_alias_wins_over_a_group_of_the_same_name():
    assert tried(held_group(row("alias"), row("fallback", "f"), row("member", "a"))) == ["m", "f"]


@pytest.mark.parametrize("alias", [row("alias", held=False), row("alias", active=False)])
def test_a_held_group_helps_where_the_alias_of_its_name_may_not_be_used(alias: Found):
    assert tried(held_group(alias, row("fallback", "f"), row("member", "a"))) == ["a"]


@pytest.mark.parametrize(
    ("found", "text", "kind"),
    [
        ([row("alias", held=None)], NO_ALIAS, TeamModelDenied),
        ([row("alias", held=None), row("fallback", "b")], NO_ALIAS, TeamModelDenied),
        ([row("alias", held=False)], NO_ALIAS, KeyModelDenied),
        ([row("alias", active=False)], NO_ALIAS, TeamModelDenied),
        ([row("alias", active=False, held=False)], NO_ALIAS, TeamModelDenied),
        ([row("alias", active=False), row("fallback", "b")], NO_ALIAS, TeamModelDenied),
        ([row("alias", held=None, group="active")], NO_ALIAS, TeamModelDenied),
        ([row(group="active")], NO_GROUP, TeamModelDenied),
        ([row("member", "a", group="active")], NO_GROUP, TeamModelDenied),
        ([row("member", "a", group="inactive")], NO_GROUP, TeamModelDenied),
        ([row("member", "a", group="inactive", group_held=True)], UNKNOWN, UnknownModel),
        ([row("member", "a", held=False, group="active", group_held=True)], NO_GROUP, KeyModelDenied),
        ([row()], UNKNOWN, UnknownModel),
        (held_group(row()), EMPTY, Forbidden),
        (held_group(row("member", "a", active=False)), EMPTY, Forbidden),
    ],
)
def test_refusals_say_why(found: list[Found], text: str, kind: type[Forbidden]):
    with pytest.raises(Forbidden) as refused:
        decide("t", "m", found)
    assert (type(refused.value), refused.value.detail) == (kind, text)
    assert "credit" not in text


def test_without_any_name_there_is_nothing_to_try():
    with pytest.raises(BadRequest) as refused:
        decide("t", None, [row(name=None)])
    assert refused.value.detail == "No model given and team 't' has no default model"


def test_an_unknown_team_is_not_found():
    with pytest.raises(NotFound):
        decide("t", "m", [])


def test_the_route_keeps_the_name_asked_for_else_names_the_alias():
    assert decide("t", "m", held_group(row("member", "a"))).asked == "m"
    assert decide("t", None, held_group(row("member", "a"))).asked == "a"


rows = st.builds(
    row,
    st.sampled_from(["alias", "fallback", "member"]),
    st.sampled_from("abcd"),
    active=st.booleans(),
    held=st.booleans(),
)


@given(st.lists(rows, min_size=1), st.sampled_from([None, "active", "inactive"]), st.booleans())
def test_only_active_aliases_are_ever_tried_and_only_when_something_is_held(
    found: list[Found], status: str | None, group_held: bool
):
    found = [one._replace(group_status=status, group_held=group_held) for one in found]
    try:
        aliases = tried(found)
    except Forbidden:
        return
    assert len(aliases) == len(set(aliases))
    assert set(aliases) <= {one.candidate.alias for one in found if one.active and one.candidate}
    usable = any(one.role == "alias" and one.active and one.held for one in found)
    assert usable or (status == "active" and group_held)


async def aliases_for(runtime: Runtime, team_id: str, asked: str | None, *only: str) -> list[str]:
    async with runtime.db.statement() as tx:
        return [found.alias for found in (await resolve(tx, team_id, asked, only=only)).candidates]


async def refusal_for(runtime: Runtime, team_id: str, asked: str | None, *only: str) -> WaybillError:
    with pytest.raises((Forbidden, BadRequest, NotFound)) as refused:
        await aliases_for(runtime, team_id, asked, *only)
    return refused.value


async def refused_for(runtime: Runtime, team_id: str, asked: str | None, *only: str) -> object:
    return (await refusal_for(runtime, team_id, asked, *only)).detail


@pytest.fixture
async def api(runtime: Runtime):
    async with opened(runtime) as found:
        yield found


async def test_candidate_holds_what_a_call_needs(api: Api, runtime: Runtime):
    name = f"{unique('vendor')}/big/model"
    group = (await api.group())["group_name"]
    await api.alias(
        alias=name,
        litellm_model="anthropic/claude-x",
        access_groups=[group],
        pricing_input=3,
        pricing_output=15,
        pricing_cached_input=0.3,
        allow_unpriced=True,
        max_output_tokens=4096,
        api_base="http://127.0.0.1:9000/",
        api_key="sk-provider",
    )
    team = (await api.team(access_groups=[group]))["team_id"]
    async with runtime.db.transaction() as tx:
        route = await resolve(tx, team, name)

    assert route.asked == name
    assert route.candidates == (
        Candidate(
            alias=name,
            litellm_model="anthropic/claude-x",
            provider="anthropic",
            input_nanousd_per_mtok=3_000_000_000,
            output_nanousd_per_mtok=15_000_000_000,
            cached_input_nanousd_per_mtok=300_000_000,
            allow_unpriced=True,
            max_output_tokens=4096,
            has_key=True,
            api_base="http://127.0.0.1:9000/",
        ),
    )


async def test_names_groups_and_fallbacks_of_a_real_team(api: Api, runtime: Runtime):
    foreign = (await api.alias())["alias"]
    off = (await api.alias(active=False))["alias"]
    b = (await api.alias())["alias"]
    gone = (await api.alias())["alias"]
    a = (await api.alias(fallbacks=[foreign, off, gone, b]))["alias"]
    assert (await api.send("DELETE", f"/models/{gone}")).status_code == 200
    group = (await api.group(model_aliases=[b, off, a]))["group_name"]
    other = (await api.group(model_aliases=[foreign]))["group_name"]
    team = (await api.team(access_groups=[group]))["team_id"]

    assert await aliases_for(runtime, team, a) == [a, foreign, b]
    assert await aliases_for(runtime, team, group) == [b, a]
    for name, word in ((foreign, "alias"), (off, "alias"), (other, "group")):
        assert await refused_for(runtime, team, name) == f"Team '{team}' does not have access to model {word} '{name}'"
    assert await refused_for(runtime, team, "nothing") == "Model group 'nothing' not found or inactive"
    assert await refused_for(runtime, "no-team", a) == "Team 'no-team' not found"


async def test_without_a_name_the_default_else_the_first_alias(api: Api, runtime: Runtime):
    a, b, c = [(await api.alias(alias=unique(word)))["alias"] for word in "abc"]
    second = (await api.group(model_aliases=[a]))["group_name"]
    first = (await api.group(model_aliases=[c, b]))["group_name"]
    empty = (await api.group())["group_name"]
    groups = [empty, first, second]

    assert await aliases_for(runtime, (await api.team(access_groups=groups))["team_id"], None) == [c]
    named = (await api.team(access_groups=groups, default_model=a))["team_id"]
    assert await aliases_for(runtime, named, None) == [a]
    grouped = (await api.team(access_groups=groups, default_model=first))["team_id"]
    assert await aliases_for(runtime, grouped, None) == [c, b]
    bare = (await api.team(access_groups=[empty]))["team_id"]
    nothing = f"No model given and team '{bare}' has no default model"
    assert await refused_for(runtime, bare, None) == nothing


async def test_an_alias_switched_off_is_refused_at_the_next_call(api: Api, runtime: Runtime):
    alias = (await api.alias())["alias"]
    group = (await api.group(model_aliases=[alias]))["group_name"]
    team = (await api.team(access_groups=[group]))["team_id"]
    assert await aliases_for(runtime, team, alias) == [alias]

    await api.put(f"/model-aliases/{alias}", {"active": False})
    assert await refused_for(runtime, team, alias) == f"Team '{team}' does not have access to model alias '{alias}'"
    assert await refused_for(runtime, team, group) == f"No active models configured for group '{group}'"


async def test_a_keys_own_models_narrow_what_its_team_may_use(api: Api, runtime: Runtime):
    a, b, c, foreign = [(await api.alias())["alias"] for _ in range(4)]
    await api.put(f"/models/{a}", {"fallbacks": [foreign]})
    first = (await api.group(model_aliases=[a, b, c]))["group_name"]
    second = (await api.group(model_aliases=[c]))["group_name"]
    closed = (await api.group(model_aliases=[foreign]))["group_name"]
    team = (await api.team(access_groups=[first, second], default_model=b))["team_id"]

    assert await aliases_for(runtime, team, a, a) == [a, foreign], "a fallback needs no access"
    assert await aliases_for(runtime, team, c, second) == [c], "a group stands for its aliases"
    assert await aliases_for(runtime, team, first, c, b) == [b, c], "of a group remain those that are named"
    assert await aliases_for(runtime, team, second, second) == [c]
    assert await aliases_for(runtime, team, None, a, b) == [b]
    assert await aliases_for(runtime, team, None, c, a) == [a, foreign], "the default is closed"
    no_alias, no_group = [f"Team '{team}' does not have access to model {word} " for word in ("alias", "group")]
    assert await refused_for(runtime, team, b, a) == f"{no_alias}'{b}'"
    assert await refused_for(runtime, team, first, foreign) == f"{no_group}'{first}'"
    assert await refused_for(runtime, team, foreign, foreign, closed) == f"{no_alias}'{foreign}'"
    assert await refused_for(runtime, team, closed, closed) == f"{no_group}'{closed}'"
    for asked, named in ((b, a), (first, foreign)):
        assert type(await refusal_for(runtime, team, asked, named)) is KeyModelDenied, "the team may use it"
    for asked in (foreign, closed):
        assert type(await refusal_for(runtime, team, asked, foreign, closed)) is TeamModelDenied


async def test_a_candidate_knows_whether_there_is_a_key(api: Api, runtime: Runtime):
    plain = (await api.alias(litellm_model="anthropic/claude-x"))["alias"]
    own = (await api.alias(litellm_model="anthropic/claude-x", api_key="sk-own"))["alias"]
    server = (await api.alias(litellm_model="anthropic/claude-x", api_base="http://127.0.0.1:4010/"))["alias"]
    group = (await api.group(model_aliases=[plain, own, server]))["group_name"]
    organization = (await api.organization())["organization_id"]
    team = (await api.team(organization_id=organization, access_groups=[group]))["team_id"]

    async def has_key() -> list[bool]:
        async with runtime.db.statement() as tx:
            return [found.has_key for found in (await resolve(tx, team, group)).candidates]

    assert await has_key() == [False, True, False]
    body = {"organization_id": organization, "provider": "openai", "credential_name": "o", "api_key": "sk-o"}
    await api.post("/provider-credentials/create", body)
    assert await has_key() == [False, True, False], "of another provider"
    await api.post("/provider-credentials/create", {**body, "provider": "anthropic", "credential_name": "a"})
    assert await has_key() == [True, True, False], "not for the alias with its own server"
