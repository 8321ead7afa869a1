async def test_it(stack):
    team = await stack.team()
    call = await team.submit("What is the capital of France?")
    got = await team.result(call)
    print(got)
    assert got["response"]["content"] == "Paris"
    print(await team.charges(), await team.balance(), await team.events(call.job_id))
