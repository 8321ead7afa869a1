"""What has a callback says where it goes and how far it is."""

from uuid import UUID

from tests.api.batch_requests import batch_of, ended, read, send, tended, uuid_of
from tests.scene import Scene

HOOK = "http://127.0.0.1:8099/hook"


async def test_a_call_echoes_its_callback_and_how_the_latest_delivery_stands(scene: Scene):
    scene.live = False
    team = await scene.team()
    job = (await team.job())["job_id"]
    told, untold = await team.call(job, callback_url=HOOK), await team.call(job)
    echo = {"url": HOOK, "events": ["call.completed", "call.failed", "call.cancelled"], "last_status": None}
    assert (await team.read(job, told))["callback"] == {**echo, "state": "pending"}
    await scene.work_on(told, untold)
    failing = "update deliveries set state = 'failing', last_status = 503 where job_id = :job and callback = 'call'"
    await scene.rows(f"{failing} returning id", job=UUID(job))
    assert (await team.read(job, told))["callback"] == {**echo, "state": "failing", "last_status": 503}
    assert (await team.read(job, untold))["callback"] is None
    listed = (await team.get(f"/jobs/{job}/calls")).json()["calls"]
    assert {call["call_id"]: call["callback"] and call["callback"]["state"] for call in listed} == {
        told: "failing",
        untold: None,
    }


async def test_a_cancelled_call_echoes_its_callback(scene: Scene):
    scene.live = False
    team = await scene.team()
    job = (await team.job())["job_id"]
    call = await team.call(job, callback_url=HOOK, callback_events=["call.*"])
    cancelled = (await team.post(f"/jobs/{job}/calls/{call}/cancel")).json()
    assert cancelled["callback"] == {"url": HOOK, "events": ["call.*"], "state": "pending", "last_status": None}


async def test_a_batch_echoes_its_callback_alone_and_in_a_list(scene: Scene):
    team, echo = await scene.team(), {"url": HOOK, "events": ["batch.completed"]}
    async with tended(scene):
        told = await batch_of(team, "a", callback_url=HOOK, callback_events=echo["events"])
        untold = await batch_of(team, "a")
        assert (await read(team, told["id"]))["callback"] == {**echo, "state": "pending", "last_status": None}
        await ended(team, told)
    failing = "update deliveries set state = 'failing', last_status = 503 where job_id = :job returning id"
    await scene.rows(failing, job=uuid_of(told))
    listed = (await send(team, "GET")).json()["data"]
    assert [batch["callback"] for batch in listed] == [None, {**echo, "state": "failing", "last_status": 503}]
    assert (await read(team, untold["id"]))["callback"] is None
