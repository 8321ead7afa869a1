"""The sender dies between the POST and its record: the webhook comes again under the same id, and is never lost."""

import asyncio

from tests.invariants import verify
from tests.stack import Stack
from tests.waiting import until
from tests.workers.receiver import response


async def test_a_sender_killed_between_post_and_record_sends_again_with_the_same_id(stack: Stack) -> None:
    team = await stack.team()

    async def kill(writer: asyncio.StreamWriter) -> None:
        """The request is read, and nobody is left who could write down what is answered."""
        for pid in stack.worker_pids():
            stack.kill_worker_unit(pid)
        writer.write(response(200))

    hooks = await stack.receiver(kill, response(200))
    await team.register(hooks, ["job.completed"])
    await team.job("Hello", auto_complete=True)
    await hooks.arrived(1)

    async def twice() -> bool:
        return len(hooks.receiver.received) == 2

    # Not when the lease of the dead one ends, half a minute later: the unit in its place frees it.
    await until(twice, "the webhook came again", 15)
    first, second = hooks.receiver.received
    assert first.body == second.body
    names = ("webhook-id", "waybill-delivery-id")
    assert [first.headers[name] for name in names] == [second.headers[name] for name in names]
    assert [received.headers["waybill-attempt"] for received in (first, second)] == ["1", "2"]
    await verify(stack, delivered=True)
    assert len(hooks.receiver.received) == 2
