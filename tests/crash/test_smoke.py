from tests.invariants import verify


async def test_it(stack):
    team = await stack.team(fallbacks=1)
    call = await team.submit("What is the capital of France?")
    got = await team.result(call)
    assert got["response"]["content"] == "Paris"
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed"])
    for text in ("a", "b"):
        await team.submit(text)
    await hooks.arrived(2)
    await stack.provider.script({"fault": "status", "status": 400}, match=team.model)
    call = await team.submit("c")
    print(await team.result(call))
    await verify(stack, delivered=True)
