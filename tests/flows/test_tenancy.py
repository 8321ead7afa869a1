"""What belongs to one team is closed to another, by every route that takes an id."""

from tests.stack import Stack


async def test_no_route_shows_or_changes_another_teams_things(stack: Stack):
    owner, stranger = await stack.team(), await stack.team()
    call = await owner.submit("a secret of the owner")
    await owner.result(call)
    open_job = (await owner.job())["job_id"]
    job, team, alias = f"/api/jobs/{call.job_id}", owner.team_id, owner.alias
    group, organization = f"group-{team}", f"org-{team}"
    requests = [
        ("GET", job, None), ("GET", f"{job}/costs", None), ("GET", f"{job}/calls", None), ("GET", call.path, None),
        ("POST", f"{job}/complete", {"status": "failed"}), ("POST", f"{job}/cancel", None),
        ("POST", f"/api/jobs/{open_job}/complete", {"status": "failed"}), ("POST", f"/api/jobs/{open_job}/cancel", None),
        ("POST", f"/api/jobs/{open_job}/llm-call", stranger.call("hello")), ("POST", f"{call.path}/cancel", None),
        ("POST", "/api/jobs/create", {"team_id": team, "job_type": "t"}),
        ("GET", f"/api/teams/{team}", None), ("GET", f"/api/organizations/{organization}", None),
        ("GET", f"/api/credits/balance?team_id={team}", None), ("GET", f"/api/credits/teams/{team}/balance", None),
        ("GET", f"/api/teams/{team}/credits", None), ("GET", f"/api/model-access-groups/{group}", None),
        ("GET", f"/api/model-aliases/{alias}", None),
        ("POST", "/api/webhooks/register", {"team_id": team, "webhook_url": "http://127.0.0.1:9/"}),
    ]  # fmt: skip
    for method, path, body in requests:
        answer = await stranger.client.request(method, path, json=body)
        assert answer.status_code in (403, 404), (method, path, answer.status_code, answer.text)
        assert "secret of the owner" not in answer.text
    assert (await owner.client.get(f"/api/jobs/{open_job}")).json()["status"] == "pending"
    assert (await owner.client.get(call.path)).json()["status"] == "completed"


async def test_a_model_of_another_team_cannot_be_asked(stack: Stack):
    owner, stranger = await stack.team(), await stack.team()
    job_id = (await stranger.job())["job_id"]
    answer = await stranger.ask(job_id, "hello", model=owner.alias)
    assert answer.status_code == 403
    assert await stack.provider.count(owner.model) == 0
