"""Whose key a call uses, from the rows to the provider's socket: alias, named credential, active one, environment."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from shared import models
from shared.runtime import Runtime
from shared.sealer import Sealer
from tests import scene as scenes
from tests.api.admin import made
from tests.conftest import ENCRYPTION_KEY
from tests.scene import PRICES, Scene, Team
from tests.workers.litellm_rig import Demo
from workers.calls import Calls

pytest_plugins = ("tests.workers.litellm_fixtures",)

ENVIRONMENT = "sk-environment-key-0001"


@dataclass
class Rig:
    """A team of an organization, a real litellm, and the demo provider that tells the end of the key it was sent."""

    scene: Scene
    demo: Demo
    library: Any
    team: Team
    organization: str

    async def credential(self, name: str, key: str, **fields: Any) -> str:
        body = {"organization_id": self.organization, "provider": "openai", "credential_name": name, "api_key": key}
        made_ = made(
            await self.scene.api.post("/provider-credentials/create", {"api_base": self.demo.base, **body, **fields})
        )
        id_: str = made_["credential_id"]
        return id_

    async def alias(self, **fields: Any) -> None:
        """Change the team's first alias."""
        made(await self.scene.api.put(f"/models/{self.team.models[0]}", fields))

    async def ask(self) -> tuple[dict[str, Any], list[str]]:
        """The call object as admins see it once it ended, and the ends of the keys that the provider was sent."""
        provider = self.library.LitellmProvider(self.scene.rt.settings, self.scene.rt.sealer, {"openai": ENVIRONMENT})
        self.scene.worker = Calls(self.scene.rt, provider, "test-worker")
        await self.demo.client.post("/_control/reset")
        job = await self.team.job()
        call_id = await self.team.call(job["job_id"])
        await self.scene.work_on(call_id)
        await provider.aclose()
        shown = made(await self.scene.api.get(f"/jobs/{job['job_id']}/calls/{call_id}"))
        return shown, [request["headers"]["authorization"][-4:] for request in await self.demo.requests()]


@pytest.fixture
async def rig(runtime: Runtime, demo: Demo, library: Any) -> AsyncIterator[Rig]:
    async with scenes.opened(runtime) as scene:
        team = await scene.team(alias={"api_key": None, "litellm_model": "openai/gpt-4", **PRICES})
        row = await scene.row("select organization_id as id from teams where id = :id", id=team.id)
        yield Rig(scene, demo, library, team, row.id)


def used(shown: dict[str, Any]) -> list[str | None]:
    return [attempt["credential_id"] for attempt in shown["attempts"]]


async def test_the_order_of_keys(rig: Rig):
    named = await rig.credential("named", "sk-the-named-one-2222")
    made(await rig.scene.api.put(f"/provider-credentials/{named}/deactivate"))
    active = await rig.credential("active", "sk-the-active-one-3333")

    shown, keys = await rig.ask()
    assert (shown["status"], used(shown), keys) == ("completed", [active], ["3333"])
    await rig.alias(credential_name="named")
    shown, keys = await rig.ask()
    assert (used(shown), keys) == ([named], ["2222"])
    await rig.alias(credential_name="nobody")
    shown, keys = await rig.ask()
    assert (used(shown), keys) == ([active], ["3333"])
    await rig.alias(credential_name="named", api_key="sk-the-alias-own-1111", api_base=rig.demo.base)
    shown, keys = await rig.ask()
    assert (used(shown), keys) == ([None], ["1111"])


async def test_a_name_never_leads_to_another_providers_key_nor_to_another_organizations(rig: Rig):
    await rig.credential("shared", "sk-of-another-provider", provider="anthropic")
    other = made(
        await rig.scene.api.post(
            "/organizations/create",
            {"organization_id": f"{rig.organization}-2", "name": "x", "create_default_team": False},
        )
    )
    rig_organization, rig.organization = rig.organization, other["organization_id"]
    await rig.credential("main", "sk-of-another-organization")
    rig.organization = rig_organization
    await rig.alias(credential_name="shared")
    async with rig.scene.rt.db.statement() as tx:
        route = await models.resolve(tx, rig.team.id, None)
    assert [candidate.has_key for candidate in route.candidates] == [False]


async def test_an_alias_with_its_own_server_never_gets_another_servers_key(rig: Rig):
    await rig.credential("elsewhere", "sk-of-another-server", api_base="https://provider.invalid/v1")
    await rig.alias(api_base=rig.demo.base, credential_name="elsewhere")
    shown, keys = await rig.ask()
    assert (shown["status"], used(shown), keys) == ("completed", [None], ["none"])

    made(await rig.scene.api.put(f"/models/{rig.team.models[0]}", {"api_base": f"{rig.demo.base}/"}))
    other = await rig.scene.row(
        "select id from provider_credentials where credential_name = 'elsewhere' and organization_id = :org",
        org=rig.organization,
    )
    made(await rig.scene.api.put(f"/provider-credentials/{other.id}", {"api_base": rig.demo.base}))
    shown, keys = await rig.ask()
    assert (used(shown), keys) == ([str(other.id)], ["rver"])


async def test_a_key_that_cannot_be_opened_sends_nothing_and_the_next_candidate_is_tried(rig: Rig):
    first = rig.team.models[0]
    second = made(
        await rig.scene.api.post(
            "/models/create",
            {
                "alias": f"{first}-b",
                "litellm_model": "openai/gpt-4",
                "api_key": "sk-second-4444",
                "api_base": rig.demo.base,
                **PRICES,
            },
        )
    )["alias"]
    credential = await rig.credential("main", "sk-the-active-one-3333")
    await rig.alias(fallbacks=[second])
    wrong = Sealer(ENCRYPTION_KEY).seal("sk-x", purpose="provider_credentials.api_key:another")
    await rig.scene.rows(
        "update provider_credentials set api_key_sealed = :value where id = :id returning id",
        value=wrong,
        id=credential,
    )
    shown, keys = await rig.ask()
    assert shown["candidates"] == [first, second]
    assert (shown["status"], keys) == ("completed", ["4444"])
    assert [(one["error_code"], one["credential_id"]) for one in shown["attempts"]] == [
        ("provider_auth", credential),
        (None, None),
    ]


async def test_a_replaced_key_is_used_at_the_next_attempt(rig: Rig):
    credential = await rig.credential("main", "sk-old-key-5555")
    assert (await rig.ask())[1] == ["5555"]
    made(await rig.scene.api.put(f"/provider-credentials/{credential}", {"api_key": "sk-new-key-6666"}))
    assert (await rig.ask())[1] == ["6666"]
