"""GET /webhooks/event-types: the catalogue says what there is, and its examples and events keep to its schemas."""

from typing import Any

import orjson
from jsonschema import Draft202012Validator

from api.wire.event_types import catalogue
from shared import event_types
from tests.api.admin import made
from tests.scene import HELLO, Scene, refused


def types(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {type_["type"]: type_ for type_ in found["event_types"]}


async def test_it_names_every_type_and_who_may_have_it(scene: Scene):
    team = await scene.team()
    found = types(made(await team.get("/webhooks/event-types")))
    assert set(found) == {*event_types.ALL, "webhook.test"}
    assert {name for name, type_ in found.items() if type_["opt_in"]} == set(event_types.OPT_IN)
    assert {name for name, type_ in found.items() if not type_["is_subscribable"]} == {"webhook.test"}
    for type_ in found.values():
        assert type_["description"].endswith(".")


def test_every_example_is_valid_and_its_id_is_in_data():
    for type_ in types(catalogue()).values():
        Draft202012Validator.check_schema(type_["schema"])
        Draft202012Validator(type_["schema"]).validate(type_["example"])
        assert type_["example"]["type"] == type_["example"]["event"] == type_["type"]
        assert type_["example"]["data"]["id"]


def test_an_example_of_another_type_is_refused_by_a_schema():
    found = types(catalogue())
    assert not Draft202012Validator(found["job.completed"]["schema"]).is_valid(found["call.completed"]["example"])


def test_a_receiver_that_holds_us_to_a_schema_bears_a_new_key():
    for type_ in types(catalogue()).values():
        example = type_["example"]
        grown = {**example, "new": 1, "data": {**example["data"], "new": 1}}
        Draft202012Validator(type_["schema"]).validate(grown)


async def test_events_keep_to_the_schemas_of_their_types(scene: Scene):
    team = await scene.team()
    job = await team.job()
    scene.provider.steps = [refused(again="never")]
    await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO})
    await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO})
    await team.complete(job["job_id"])
    schemas = types(catalogue())
    rows = await scene.rows("select type, body from events where team_id = :t", t=team.id)
    assert {row.type for row in rows} >= {"job.completed", "call.completed", "call.failed"}
    for row in rows:
        Draft202012Validator(schemas[row.type]["schema"]).validate(orjson.loads(row.body))
