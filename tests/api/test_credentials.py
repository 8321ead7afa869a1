"""Provider credentials: sealed when they come, never answered, at most one active for an organization and provider."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from shared.runtime import Runtime
from shared.sealed_columns import CREDENTIAL_KEY
from tests.api.admin import Api, made, refusal, unique, wrong_place
from tests.scene import HELLO, Scene

KEY = "sk-very-secret-provider-key-4f2a"
PATH = "/provider-credentials"


@pytest.fixture
async def organization(api: Api) -> str:
    found: str = (await api.organization())["organization_id"]
    return found


def body(organization: str, **fields: Any) -> dict[str, Any]:
    named = {"organization_id": organization, "provider": "openai", "credential_name": unique("key")}
    return {**named, "api_key": KEY, **fields}


async def create(api: Api, organization: str, **fields: Any) -> dict[str, Any]:
    return made(await api.post(f"{PATH}/create", body(organization, **fields)))


async def test_the_key_is_sealed_and_never_answered(api: Api, organization: str, runtime: Runtime):
    wanted = body(organization, credential_name="main", api_base="http://127.0.0.1:4010/v1", created_by="ann")
    answers = [await api.post(f"{PATH}/create", wanted)]
    id_ = made(answers[0])["credential_id"]
    answers.append(await api.get(f"{PATH}/{id_}?include_api_key=true"))
    answers.append(await api.get(f"{PATH}?organization_id={organization}&include_api_key=true"))
    answers.append(await api.put(f"{PATH}/{id_}", {"updated_by": "bob"}))
    for answer in answers:
        assert answer.status_code == 200
        assert KEY not in answer.text
    shown = made(answers[0])
    assert shown == {
        "credential_id": id_,
        "organization_id": organization,
        "provider": "openai",
        "credential_name": "main",
        "api_base": "http://127.0.0.1:4010/v1",
        "is_active": True,
        "has_api_key": True,
        "key_hint": "...4f2a",
        "created_by": "ann",
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
    }
    assert made(answers[1]) == shown
    assert answers[2].json() == [shown]

    async with runtime.db.statement() as tx:
        rows = await tx.exec_driver_sql("select api_key_sealed from provider_credentials where id = %s", (id_,))
        value = rows.scalar_one()
    assert KEY.encode() not in bytes(value)
    assert runtime.sealer.open(value, purpose=CREDENTIAL_KEY.purpose(id_)) == KEY


async def test_a_short_key_shows_nothing_of_itself(api: Api, organization: str):
    assert (await create(api, organization, api_key="sk-short"))["key_hint"] == "..."


async def test_one_is_active_for_an_organization_and_provider(api: Api, organization: str):
    first = await create(api, organization)
    taken = (
        f"Organization '{organization}' already has an active credential for provider 'openai'. "
        "Deactivate the existing one first or update it."
    )
    assert refusal(await api.post(f"{PATH}/create", body(organization))) == (400, taken)
    await create(api, organization, provider="anthropic")
    await create(api, (await api.organization())["organization_id"])

    off = made(await api.put(f"{PATH}/{first['credential_id']}/deactivate"))
    assert off == {
        **first,
        "is_active": False,
        "updated_at": off["updated_at"],
        "message": "Provider credential deactivated successfully",
    }
    second = await create(api, organization)
    cannot = (
        "Cannot activate: organization already has an active credential for this provider. "
        "Deactivate the other one first."
    )
    assert refusal(await api.put(f"{PATH}/{first['credential_id']}/activate")) == (400, cannot)
    assert refusal(await api.put(f"{PATH}/{first['credential_id']}", {"is_active": True})) == (400, taken)
    assert made(await api.put(f"{PATH}/{second['credential_id']}/activate"))["is_active"] is True
    made(await api.put(f"{PATH}/{second['credential_id']}", {"is_active": False}))
    assert made(await api.put(f"{PATH}/{first['credential_id']}/activate"))["is_active"] is True


async def test_of_many_creates_at_once_one_wins(api: Api, organization: str):
    answers = await asyncio.gather(*(api.post(f"{PATH}/create", body(organization)) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert len((await api.get(f"{PATH}/organization/{organization}?active_only=false")).json()) == 1


async def test_names_are_unique_in_an_organization(api: Api, organization: str):
    await create(api, organization, credential_name="main")
    taken = f"Credential name 'main' already exists in organization '{organization}'"
    wanted = body(organization, credential_name="main", provider="anthropic")
    assert refusal(await api.post(f"{PATH}/create", wanted)) == (400, taken)
    other = await create(api, organization, provider="anthropic")
    assert refusal(await api.put(f"{PATH}/{other['credential_id']}", {"credential_name": "main"})) == (400, taken)


async def test_change_sets_the_fields_given_and_no_others(api: Api, organization: str, runtime: Runtime):
    first = await create(api, organization, api_base="http://127.0.0.1:4010/v1")
    path = f"{PATH}/{first['credential_id']}"
    renamed = made(await api.put(path, {"credential_name": "new", "api_key": None}))
    assert renamed == {**first, "credential_name": "new", "updated_at": renamed["updated_at"]}
    rekeyed = made(await api.put(path, {"api_key": "sk-another-key-with-end-9999", "api_base": None}))
    assert (rekeyed["key_hint"], rekeyed["api_base"]) == ("...9999", None)
    async with runtime.db.statement() as tx:
        rows = await tx.exec_driver_sql(
            "select api_key_sealed from provider_credentials where id = %s", (first["credential_id"],)
        )
        value = rows.scalar_one()
    purpose = CREDENTIAL_KEY.purpose(first["credential_id"])
    assert runtime.sealer.open(value, purpose=purpose) == "sk-another-key-with-end-9999"


async def test_lists_filter_and_count(api: Api, organization: str):
    old = await create(api, organization)
    made(await api.put(f"{PATH}/{old['credential_id']}/deactivate"))
    new = await create(api, organization)
    claude = await create(api, organization, provider="anthropic")

    async def ids(query: str) -> list[str]:
        answer = await api.get(f"{PATH}{query}")
        assert answer.headers["x-total-count"] == str(len(answer.json()))
        return [found["credential_id"] for found in answer.json()]

    newest_first = [found["credential_id"] for found in (claude, new, old)]
    assert await ids(f"?organization_id={organization}") == newest_first[:2]
    assert await ids(f"?organization_id={organization}&active_only=false") == newest_first
    assert await ids(f"?organization_id={organization}&provider=anthropic") == newest_first[:1]
    assert await ids(f"/organization/{organization}") == newest_first[:2]
    assert await ids(f"/organization/{organization}?active_only=false") == newest_first
    assert await ids(f"/organization/{organization}/provider/openai") == [new["credential_id"]]
    page = await api.get(f"{PATH}?organization_id={organization}&active_only=false&limit=1&offset=1")
    assert [found["credential_id"] for found in page.json()] == newest_first[1:2]
    assert page.headers["x-total-count"] == "3"
    assert 'rel="next"' in page.headers["link"]


async def test_what_is_not_there_is_told(api: Api, organization: str):
    missing = str(uuid4())
    for id_ in (missing, "nonsense", "a%00b"):
        text = f"Provider credential '{id_.replace('%00', chr(0))}' not found"
        answers = [
            await api.get(f"{PATH}/{id_}"),
            await api.put(f"{PATH}/{id_}", {"api_key": KEY}),
            await api.put(f"{PATH}/{id_}/activate"),
            await api.put(f"{PATH}/{id_}/deactivate"),
            await api.send("DELETE", f"{PATH}/{id_}"),
        ]
        assert [refusal(answer) for answer in answers] == [(404, text)] * 5
    nobody = (404, "Organization 'nobody' not found")
    assert refusal(await api.get(f"{PATH}/organization/nobody")) == nobody
    assert refusal(await api.post(f"{PATH}/create", body("nobody"))) == nobody
    none = (404, f"No active credential found for organization '{organization}' and provider 'openai'")
    assert refusal(await api.get(f"{PATH}/organization/{organization}/provider/openai")) == none


@pytest.mark.parametrize(
    ("field", "value"),
    [("api_key", None), ("api_key", ""), ("credential_name", ""), ("organization_id", "a b"), ("provider", None)],
)
async def test_wrong_values_are_refused_at_their_field(api: Api, organization: str, field: str, value: object):
    answer = await api.post(f"{PATH}/create", body(organization, **{field: value}))
    assert wrong_place(answer) == ["body", field]


async def test_unknown_providers_and_forbidden_servers_are_refused(api: Api, organization: str):
    for answer in (
        await api.post(f"{PATH}/create", body(organization, provider="zzz")),
        await api.get(f"{PATH}?provider=zzz"),
    ):
        status, detail = refusal(answer)
        assert status == 400
        assert detail.startswith("Invalid provider: zzz. Must be one of: openai, ")
    metadata = "http://169.254.169.254/latest"
    found = await create(api, organization)
    for answer in (
        await api.post(f"{PATH}/create", body(organization, api_base=metadata)),
        await api.put(f"{PATH}/{found['credential_id']}", {"api_base": metadata}),
    ):
        status, detail = refusal(answer)
        assert status == 400
        assert detail.startswith("api_base is not allowed: ")


async def test_deletes_with_its_key(api: Api, organization: str):
    id_ = (await create(api, organization))["credential_id"]
    gone = made(await api.send("DELETE", f"{PATH}/{id_}"))
    assert gone == {"credential_id": id_, "message": "Provider credential deleted successfully"}
    assert (await api.get(f"{PATH}/{id_}")).status_code == 404
    await create(api, organization)


async def test_only_admins_and_every_change_is_on_record(api: Api, organization: str, runtime: Runtime):
    team = await api.team(organization_id=organization)
    closed = await api.get(PATH, key=team["virtual_key"])
    assert refusal(closed) == (403, "Admin access required")
    id_ = (await create(api, organization))["credential_id"]
    for step in ("deactivate", "activate"):
        made(await api.put(f"{PATH}/{id_}/{step}"))
    made(await api.put(f"{PATH}/{id_}", {"api_key": KEY}))
    made(await api.send("DELETE", f"{PATH}/{id_}"))
    async with runtime.db.statement() as tx:
        rows = await tx.exec_driver_sql(
            "select action, details::text as details from audit_log where resource_id = %s order by id", (id_,)
        )
        lines = rows.all()
    verbs = ("created", "deactivated", "activated", "updated", "deleted")
    assert [line.action for line in lines] == [f"{verb}_provider_credential" for verb in verbs]
    assert all(KEY not in line.details for line in lines)


async def test_a_repeated_create_makes_one(api: Api, organization: str):
    wanted = body(organization)
    headers = {**api.admin, "Idempotency-Key": unique("once")}
    answers = [await api.client.post(f"/api{PATH}/create", json=wanted, headers=headers) for _ in range(2)]
    assert made(answers[0]) == made(answers[1])
    assert answers[1].headers["idempotent-replayed"] == "true"


async def test_a_call_is_accepted_when_any_key_would_do(scene: Scene):
    """Own key, credential, own server: without one of them the call is refused before anything is written."""
    team = await scene.team(alias={"api_key": None})
    job = await team.job()
    refused = await team.submit(job["job_id"])
    text = "No provider credentials configured for openai. Please add credentials in the admin dashboard."
    assert refusal(refused) == (503, text)
    assert refused.headers["retry-after"]

    organization = (await scene.row("select organization_id as id from teams where id = :id", id=team.id)).id
    credential = made(await scene.api.post(f"{PATH}/create", body(organization)))
    accepted = await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO})
    assert accepted.status_code == 200, accepted.text
    [claimed] = scene.provider.asked
    assert str(claimed.credential_id) == credential["credential_id"]
    shown = await scene.api.get(f"/jobs/{job['job_id']}/calls/{accepted.json()['call_id']}")
    assert shown.json()["candidates"] == list(team.models)
    assert [attempt["credential_id"] for attempt in shown.json()["attempts"]] == [credential["credential_id"]]
    assert "attempts" not in (await team.read(job["job_id"], accepted.json()["call_id"]))
