"""No team reads or changes anything of another team, swept over every route of the document that a team may call."""

from dataclasses import dataclass
from typing import Any

import pytest

from api.openapi_routes import Documented
from shared import key_secrets
from tests.api.admin import unique
from tests.api.batch_requests import batch_of
from tests.api.uploading import uploaded
from tests.contract.routes import filled, named, opened_by
from tests.scene import HELLO, PRICES, Scene, Team

MARK = "belongs-to-the-other"
OPEN_TO_TEAMS = opened_by("team", "any", "any:w")
OWNERS = ("team_id", "organization_id")
OWNERS_ON_GATEWAY = (*OWNERS, "user_id", "key")


def owners(route: Documented, model: Any) -> list[str]:
    """The fields of a body or a query that can say whose things are meant."""
    names = OWNERS_ON_GATEWAY if route.is_of_gateway else OWNERS
    return [] if model is None else [name for name in names if name in model.model_fields]


NAMING = [r for r in OPEN_TO_TEAMS if r.path_parameters or owners(r, r.query) or owners(r, r.body)]
PLAIN = [r for r in OPEN_TO_TEAMS if r.method == "GET" and not r.path_parameters]


@dataclass(frozen=True, kw_only=True)
class Other:
    """A team with one of each thing; `ids` fills the parameters of paths."""

    team: Team
    ids: dict[str, str]

    def query(self, route: Documented) -> dict[str, str]:
        return {name: self.ids[name] for name in owners(route, route.query)}

    def body(self) -> dict[str, Any]:
        """All that any of the routes needs; what one does not know it ignores."""
        return {
            "team_id": self.team.id,
            "job_type": "t",
            "status": "completed",
            "messages": HELLO,
            "metadata": {"taken": "over"},
            "since": "2026-01-15T00:00:00Z",
            "id_mode": "same",
            "webhook_url": "http://127.0.0.1:9/taken-over",
        }


async def sent(team: Team, webhook_id: str) -> dict[str, str]:
    """A delivery to this endpoint, and a replay."""
    await team.complete((await team.job())["job_id"])
    [delivery] = (await team.get("/webhooks/deliveries")).json()["deliveries"]
    replay = await team.post(f"/webhooks/{webhook_id}/replay", {"id_mode": "same", "since": "2026-01-15T00:00:00Z"})
    return {"delivery_id": delivery["delivery_id"], "replay_id": replay.json()["replay_id"]}


@pytest.fixture
async def other(scene: Scene, route: Documented) -> Other:
    org = await scene.api.organization(name=MARK)
    alias = (await scene.api.alias(alias=unique("alias"), api_key="sk-provider", display_name=MARK, **PRICES))["alias"]
    group = (await scene.api.group(model_aliases=[alias], description=MARK))["group_name"]
    fields = {"organization_id": org["organization_id"], "access_groups": [group], "credits_allocated": 77}
    made = await scene.api.team(**fields, team_alias=MARK, metadata={"mark": MARK})
    made_key = await scene.api.post(f"/teams/{made['team_id']}/keys", {"key_alias": unique("key"), "user_id": MARK})
    assert made_key.status_code == 200, made_key.text
    team = Team(scene=scene, id=made["team_id"], key=made["virtual_key"], models=(alias,))
    job = await team.job(user_id=MARK, metadata={"mark": MARK})
    webhook = {"team_id": team.id, "webhook_url": "http://127.0.0.1:9999/hook", "description": MARK}
    webhook_id = (await team.post("/webhooks", webhook)).json()["webhook_id"]
    signing_keys = (await team.get(f"/webhooks/{webhook_id}/secrets")).json()["secrets"]
    event = (await team.get(f"/jobs/{job['job_id']}/events")).json()["events"][0]
    ids = {
        "team_id": team.id,
        "org_id": org["organization_id"],
        "organization_id": org["organization_id"],
        "job_id": job["job_id"],
        "call_id": await team.call(job["job_id"], purpose=MARK),
        "alias": alias,
        "model": alias,
        "key": key_secrets.key_hash(team.key).hex(),
        "user_id": MARK,
        "group_name": group,
        "webhook_id": webhook_id,
        "event_id": event["id"],
        "secret_id": signing_keys[0]["key_id"],
        "file_id": (await uploaded(team, name=MARK))["id"],
    }
    if "batch_id" in route.path_parameters:
        ids["batch_id"] = (await batch_of(team, "line", Prefer="wait=0", metadata={"mark": MARK}))["id"]
    if "/deliveries" in route.template or "/replays" in route.template:
        ids |= await sent(team, webhook_id)
    return Other(team=team, ids=ids)


@pytest.mark.parametrize("route", NAMING, ids=named)
async def test_things_of_another_team_are_neither_shown_nor_changed(scene: Scene, other: Other, route: Documented):
    unknown = set(route.path_parameters) - set(other.ids)
    assert not unknown, f"tell this test what {unknown} of the other team is"
    asking = await scene.team()
    before = await other.team.read(other.ids["job_id"]), await other.team.credits()

    own = {"Authorization": f"Bearer {asking.key}", "Prefer": "respond-async"}
    path, query = filled(route, other.ids), other.query(route)
    answer = await scene.client.request(route.method, path, params=query, json=other.body(), headers=own)

    assert answer.status_code in {403, 404}, answer.text
    assert MARK not in answer.text
    assert (await other.team.read(other.ids["job_id"]), await other.team.credits()) == before


@pytest.mark.parametrize("route", PLAIN, ids=named)
async def test_what_is_asked_without_a_name_is_the_callers_own(scene: Scene, other: Other, route: Documented):
    asking = await scene.team()
    answer = await scene.client.get(route.template, headers={"Authorization": f"Bearer {asking.key}"})
    assert answer.status_code in ({200, 400} if route.is_of_gateway else {200, 422}), answer.text
    assert MARK not in answer.text
    assert not [id_ for id_ in other.ids.values() if id_ in answer.text]
