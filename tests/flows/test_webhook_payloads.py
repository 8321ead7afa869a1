"""What an endpoint gets of a completed call: thin, or with the answer as reading the call shows it."""

from typing import Any
from uuid import UUID

import orjson

from shared.settings import LOOPBACK
from tests.api.admin import made
from tests.scene import HELLO, Scene, answer
from tests.workers.delivering import send
from tests.workers.receiver import receiving
from workers.webhook_http import WebhookSender


async def told(scene: Scene, payload: str, content: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `data` that an endpoint gets of a call with this answer, and the call as it is read."""
    team = await scene.team()
    scene.live = True
    scene.provider.steps = [answer(content)]
    async with receiving() as receiver:
        body = {"team_id": team.id, "webhook_url": receiver.url(), "events": ["call.completed"], "payload": payload}
        made(await team.post("/webhooks", body))
        job = await team.job(metadata={"k": "v"})
        call = made(await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO}))
        job_id = UUID(job["job_id"])
        [queue] = await scene.rows("select queue_id as id from deliveries where job_id = :j", j=job_id)
        sender = WebhookSender(LOOPBACK, http=True)
        assert len(await send(scene.rt, sender, queue.id)) == 1
        await sender.close()
        [request] = receiver.received
    return orjson.loads(request.body)["data"], await team.read(job["job_id"], call["call_id"])


async def test_a_thin_event_has_no_text(scene: Scene):
    data, _ = await told(scene, "thin", "Paris")
    assert "response" not in data
    assert "Paris" not in str(data)


async def test_a_full_event_has_the_answer_as_the_call_shows_it(scene: Scene):
    data, call = await told(scene, "full", "Paris")
    assert data["response"] == call["response"]
    assert call["response"]["content"] == "Paris"


async def test_an_answer_too_long_for_an_event_is_read_where_the_event_says(scene: Scene):
    data, call = await told(scene, "full", "ä" * 15_000)
    assert "response" not in data
    assert data["truncated"] is True
    assert data["result_url"] == f"/api/jobs/{call['job_id']}/calls/{call['call_id']}"
    assert call["response"]["content"] == "ä" * 15_000
