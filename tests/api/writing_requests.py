"""The smallest request that succeeds, for every route with which an admin writes.

A route that is added to the table needs its line in BODIES. `{team_id}` and the like, in a path or a body, stand for a
thing that is made for this request alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.api.admin import made, unique
from tests.api.people import PASSWORD
from tests.scene import Scene, Team

SECRET = "s3cret-of-this-test-alone"
"""Stands wherever a body holds a secret: it must not be found in the audit log."""
MODELS = {"model_aliases": ["{alias}"]}
PERSON = {"email": "{unique}@acme.example", "display_name": "Ann", "password": SECRET}
REFILL = {"enabled": True, "refill_amount": 5, "refill_period": "monthly"}
CREDENTIAL = {"organization_id": "{org_id}", "provider": "openai", "api_key": SECRET, "credential_name": "main"}
WEBHOOK = {"team_id": "{team_id}", "webhook_url": "http://127.0.0.1:9999/hook", "auth_header": SECRET}
REPLAY = {"id_mode": "same", "since": "2026-01-15T00:00:00Z"}
ALIAS = {"alias": "{unique}", "litellm_model": "openai/gpt-4o", "api_key": SECRET}
GRANT = {"credits": 5, "payment_type": "one_time"}

BODIES: Mapping[tuple[str, str], Any] = {
    ("POST", "/jobs/{job_id}/cancel"): {},
    ("POST", "/jobs/{job_id}/calls/{call_id}/cancel"): {},
    ("POST", "/organizations/create"): {"organization_id": "{unique}", "name": "Acme", "create_default_team": False},
    ("PUT", "/organizations/{org_id}"): {"name": "New"},
    ("DELETE", "/organizations/{org_id}"): None,
    ("PUT", "/organizations/{org_id}/status"): {"status": "suspended"},
    ("POST", "/teams/create"): {"organization_id": "{org_id}", "team_id": "{unique}"},
    ("PUT", "/teams/{team_id}"): {"team_alias": "New"},
    ("PATCH", "/teams/{team_id}"): {"team_alias": "New"},
    ("DELETE", "/teams/{team_id}"): None,
    ("POST", "/teams/{team_id}/suspend"): {},
    ("PUT", "/teams/{team_id}/suspend"): {},
    ("POST", "/teams/{team_id}/resume"): {},
    ("PUT", "/teams/{team_id}/resume"): {},
    ("POST", "/teams/{team_id}/pause"): {},
    ("PUT", "/teams/{team_id}/pause"): {},
    ("PUT", "/teams/{team_id}/access-groups"): ["{access_group}"],
    ("PUT", "/teams/{team_id}/model-groups"): {"model_groups": ["{access_group}"]},
    ("PATCH", "/teams/{team_id}/markup"): {"cost_markup_percentage": 5},
    ("POST", "/teams/{team_id}/rotate-key"): {},
    ("POST", "/teams/{team_id}/keys"): {"key_alias": "{unique}"},
    ("PATCH", "/teams/{team_id}/keys/{key_id}"): {"blocked": True},
    ("DELETE", "/teams/{team_id}/keys/{key_id}"): None,
    ("POST", "/teams/{team_id}/keys/{key_id}/rotate"): {},
    ("POST", "/credits/add"): {"team_id": "{team_id}", "amount": 5},
    ("POST", "/credits/teams/{team_id}/add"): {"amount": 5},
    ("POST", "/teams/{team_id}/credits/allocate"): {"amount": 5},
    ("POST", "/credits/teams/{team_id}/replenish"): GRANT,
    ("POST", "/credits/teams/{team_id}/configure-auto-refill"): REFILL,
    ("POST", "/credits/teams/{team_id}/refund"): {"credits": 5},
    ("PATCH", "/credits/teams/{team_id}/conversion-rates"): {"tokens_per_credit": 5},
    ("PATCH", "/credits/teams/{team_id}/budget-mode"): {"budget_mode": "consumption_usd"},
    ("POST", "/model-aliases/create"): ALIAS,
    ("POST", "/models/create"): ALIAS,
    ("POST", "/models/aliases/create"): ALIAS,
    ("PUT", "/model-aliases/{alias:path}"): {"description": "New", "api_key": SECRET},
    ("PUT", "/models/{alias:path}"): {"description": "New", "api_key": SECRET},
    ("DELETE", "/model-aliases/{alias:path}"): None,
    ("DELETE", "/models/{alias:path}"): None,
    ("POST", "/model-access-groups/create"): {"group_name": "{unique}"},
    ("PUT", "/model-access-groups/{group_name}"): {"description": "New"},
    ("DELETE", "/model-access-groups/{group_name}"): None,
    ("PUT", "/model-access-groups/{group_name}/models"): MODELS,
    ("POST", "/model-access-groups/{group_name}/add-models"): MODELS,
    ("POST", "/model-access-groups/{group_name}/remove-models"): MODELS,
    ("POST", "/model-groups/create"): {"group_name": "{unique}", "models": [{"model_name": "{alias}"}]},
    ("DELETE", "/model-groups/{group_name}"): None,
    ("PUT", "/model-groups/{group_name}/models"): {"models": [{"model_name": "{alias}"}]},
    ("POST", "/provider-credentials/create"): CREDENTIAL,
    ("PUT", "/provider-credentials/{credential_id}"): {"api_key": SECRET},
    ("DELETE", "/provider-credentials/{credential_id}"): None,
    ("PUT", "/provider-credentials/{credential_id}/activate"): None,
    ("PUT", "/provider-credentials/{credential_id}/deactivate"): None,
    ("POST", "/admin-users"): PERSON,
    ("PUT", "/admin-users/{user_id}"): {"display_name": "New", "metadata": {"note": SECRET}},
    ("DELETE", "/admin-users/{user_id}"): None,
    ("PUT", "/admin-users/{user_id}/activate"): None,
    ("PUT", "/admin-users/{user_id}/deactivate"): None,
    ("POST", "/admin-users/{user_id}/change-password"): {"new_password": SECRET},
    ("PUT", "/admin-users/{user_id}/reset-password"): {"new_password": SECRET},
    ("POST", "/admin-users/logout"): {},
    ("POST", "/admin-users/me/change-password"): {"current_password": PASSWORD, "new_password": SECRET},
    ("PUT", "/admin-users/password"): {"current_password": PASSWORD, "new_password": SECRET},
    ("POST", "/webhooks/register"): WEBHOOK,
    ("POST", "/webhooks"): WEBHOOK,
    ("PUT", "/webhooks/{webhook_id}"): {"description": "New", "auth_header": SECRET},
    ("PATCH", "/webhooks/{webhook_id}"): {"description": "New"},
    ("DELETE", "/webhooks/{webhook_id}"): None,
    ("POST", "/webhooks/{webhook_id}/enable"): {},
    ("POST", "/webhooks/{webhook_id}/disable"): {},
    ("POST", "/webhooks/{webhook_id}/test"): {},
    ("POST", "/webhooks/callback-secret/rotate"): {"team_id": "{team_id}"},
    ("POST", "/webhooks/{webhook_id}/rotate-secret"): {},
    ("DELETE", "/webhooks/{webhook_id}/secrets/{secret_id}"): None,
    ("POST", "/webhooks/deliveries/{delivery_id}/retry"): {},
    ("POST", "/webhooks/deliveries/{delivery_id}/cancel"): {},
    ("POST", "/webhooks/replays/{replay_id}/cancel"): {},
    ("POST", "/webhooks/{webhook_id}/replay"): REPLAY,
    ("POST", "/webhooks/{webhook_id}/recover"): {"since": "2026-01-15T00:00:00Z"},
    ("POST", "/key/generate"): {"team_id": "{team_id}", "key": f"sk-{SECRET}", "metadata": {"note": SECRET}},
    ("POST", "/key/update"): {"key": "{virtual_key}", "permissions": {"note": SECRET}, "config": {"note": SECRET}},
    ("POST", "/key/delete"): {"keys": ["{virtual_key}"]},
    ("POST", "/key/block"): {"key": "{virtual_key}"},
    ("POST", "/key/unblock"): {"key": "{virtual_key}"},
    ("POST", "/key/regenerate"): {"key": "{virtual_key}"},
}


@dataclass
class Things:
    """Makes what paths and bodies name, each once, by the admin key."""

    scene: Scene
    route: str
    had: dict[str, str] = field(default_factory=dict)
    teams: list[Team] = field(default_factory=list)

    async def filled(self, value: Any) -> Any:
        """The value with every `{name}` in it replaced."""
        if isinstance(value, dict):
            return {key: await self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [await self.filled(item) for item in value]
        if not isinstance(value, str):
            return value
        for name in MAKERS:
            if "{" + name + "}" in value:
                value = value.replace("{" + name + "}", await self.get(name))
        return value

    async def get(self, name: str) -> str:
        """The thing of this name."""
        if name not in self.had:
            self.had[name] = await MAKERS[name](self)
        return self.had[name]

    async def team(self) -> Team:
        """The team that all else belongs to."""
        if not self.teams:
            self.teams.append(await self.scene.team())
        return self.teams[0]

    async def made(self, path: str, body: Any) -> dict[str, Any]:
        """What the admin makes there."""
        return made(await self.scene.api.post(path, await self.filled(body)))


async def request_of(scene: Scene, method: str, route: str) -> tuple[str, Any]:
    """The path and the body of this route's smallest request; what they name is made."""
    things = Things(scene, route)
    return await things.filled(route.replace(":path", "")), await things.filled(BODIES[method, route])


async def sent(client: httpx.AsyncClient, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    """The answer, with no body where there is none."""
    prefix = "" if path.startswith("/key/") else "/api"
    return await client.request(method, prefix + path, json=body, headers=headers)


async def _unique(_: Things) -> str:
    return unique("thing")


async def _team_id(things: Things) -> str:
    return (await things.team()).id


async def _org_id(things: Things) -> str:
    return str((await things.scene.api.organization())["organization_id"])


async def _alias(things: Things) -> str:
    return str((await things.scene.api.alias())["alias"])


async def _access_group(things: Things) -> str:
    return str((await things.scene.api.group())["group_name"])


async def _group_name(things: Things) -> str:
    if not things.route.startswith("/model-groups"):
        return await _access_group(things)
    body = {"group_name": unique("group"), "models": [{"model_name": "{alias}"}]}
    return str((await things.made("/model-groups/create", body))["group_name"])


async def _key_id(things: Things) -> str:
    return str((await things.made(f"/teams/{await things.get('team_id')}/keys", {}))["key_id"])


async def _virtual_key(things: Things) -> str:
    key = f"sk-{SECRET}-{unique('key')}"
    await things.made(f"/teams/{await things.get('team_id')}/keys", {"virtual_key": key})
    return key


async def _credential_id(things: Things) -> str:
    return str((await things.made("/provider-credentials/create", CREDENTIAL))["credential_id"])


async def _user_id(things: Things) -> str:
    return str((await things.made("/admin-users", PERSON))["user_id"])


async def _job_id(things: Things) -> str:
    return str((await (await things.team()).job())["job_id"])


async def _call_id(things: Things) -> str:
    return await (await things.team()).call(await things.get("job_id"))


async def _webhook_id(things: Things) -> str:
    return str((await things.made("/webhooks", WEBHOOK))["webhook_id"])


async def _secret_id(things: Things) -> str:
    path = f"/webhooks/{await things.get('webhook_id')}"
    await things.made(f"{path}/rotate-secret", {})
    listed = made(await things.scene.api.get(f"{path}/secrets"))
    return str(listed["secrets"][0]["key_id"])


async def _delivery_id(things: Things) -> str:
    await things.get("webhook_id")
    team = await things.team()
    await team.complete((await team.job())["job_id"])
    [delivery] = (await team.get("/webhooks/deliveries")).json()["deliveries"]
    return str(delivery["delivery_id"])


async def _replay_id(things: Things) -> str:
    answer = await things.scene.api.post(f"/webhooks/{await things.get('webhook_id')}/replay", REPLAY)
    return str(answer.json()["replay_id"])


MAKERS: Mapping[str, Callable[[Things], Awaitable[str]]] = {
    "unique": _unique,
    "team_id": _team_id,
    "org_id": _org_id,
    "alias": _alias,
    "access_group": _access_group,
    "group_name": _group_name,
    "key_id": _key_id,
    "virtual_key": _virtual_key,
    "credential_id": _credential_id,
    "user_id": _user_id,
    "job_id": _job_id,
    "call_id": _call_id,
    "secret_id": _secret_id,
    "webhook_id": _webhook_id,
    "delivery_id": _delivery_id,
    "replay_id": _replay_id,
}
