"""What the names of a subscription or a filter mean."""

from shared import event_types
from shared.db import hot
from shared.sql_terms import EVENT_NAMES
from tests.scene import Scene


def test_names_mean_types_and_opt_in_types_only_exactly():
    assert event_types.matching(["job.*"]) == [
        "job.created", "job.started", "job.completed", "job.failed", "job.cancelled",
    ]  # fmt: skip
    assert event_types.matching(["*"]) == list(event_types.TYPES)
    assert event_types.matching(["webhook.*"]) == ["webhook.endpoint.disabled"]
    assert event_types.matching(["webhook.test", "job.progress"]) == ["job.progress", "webhook.test"]
    assert event_types.matching([]) == []


async def test_statements_and_code_mean_the_same_by_the_names_of_a_type(scene: Scene):
    types = [*event_types.ALL, event_types.TEST]
    asked = f"select type, {EVENT_NAMES.format('type')} as names from unnest(%s::text[]) as t(type)"
    async with scene.rt.db.hot_statement() as tx:
        found = {row.type: set(row.names) for row in await hot(tx, asked, (types,))}
    assert found == {type_: set(event_types.names(type_)) for type_ in types}
