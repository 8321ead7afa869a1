"""Two teams on real processes: what is not one's own is refused in words that tell nothing (tests/contract sweeps)."""

from urllib.parse import quote

import httpx
import pytest

from tests.stack import Stack
from tests.team import Call, Team

MARK = "the-owner-only-knows"


class Owner:
    """A team with a finished and an open job, a webhook, and a mark on all of it; and how a path names its things."""

    def __init__(self, team: Team, organization: str, call: Call, open_job: str) -> None:
        self.team, self.call, self.open_job = team, call, open_job
        self.ids = {
            "job_id": open_job,
            "call_id": call.call_id,
            "org_id": organization,
            "team_id": team.team_id,
            "alias": team.alias,
            "alias:path": team.alias,
            "group_name": f"group-{team.team_id}",
        }


async def owner(stack: Stack) -> Owner:
    team = await stack.team(metadata={"mark": MARK})
    job = (await team.job(metadata={"mark": MARK}))["job_id"]
    call = await team.submit(MARK, job_id=job, metadata={"mark": MARK})
    await team.result(call)
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed"])
    organization = (await team.balance())["organization_id"]
    return Owner(team, organization, call, job)


async def test_an_unknown_team_reads_the_same_refusal_as_a_known_one_for_what_is_not_its_own(stack: Stack) -> None:
    mine, other = await owner(stack), await stack.team()
    path = "/api/teams/{team_id}"

    known = await other.client.get(filled(path, mine.ids))
    unknown = await other.client.get(filled(path, {"team_id": "nobody"}))

    assert (known.status_code, known.text) == (unknown.status_code, unknown.text) == (403, known.text)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_teams_call_is_not_found_in_a_job_of_ones_own(stack: Stack, method: str) -> None:
    mine, other = await owner(stack), await stack.team()
    job = (await other.job())["job_id"]
    path = f"/api/jobs/{job}/calls/{mine.call.call_id}" + ("/cancel" if method == "POST" else "")

    answer = await other.client.request(method, path)

    assert (answer.status_code, answer.json()) == (httpx.codes.NOT_FOUND, {"detail": "Call not found"})
    assert (await mine.team.read(mine.call))["status"] == "completed"


async def test_another_teams_model_cannot_be_asked_for_by_alias_or_group(stack: Stack) -> None:
    mine, other = await owner(stack), await stack.team()
    job = (await other.job())["job_id"]

    for name, kind in ((mine.team.alias, "model alias"), (mine.ids["group_name"], "model group")):
        answer = await other.ask(job, "Hello", model=name)
        detail = f"Team '{other.team_id}' does not have access to {kind} '{name}'"
        assert (answer.status_code, answer.json()) == (httpx.codes.FORBIDDEN, {"detail": detail})
    assert await stack.provider.count(mine.team.model) == 1


async def test_another_teams_credits_are_not_shown_by_query_either(stack: Stack) -> None:
    mine, other = await owner(stack), await stack.team()

    for thing, words in (("balance", "credit balance"), ("transactions", "credit transactions")):
        answer = await other.client.get(f"/api/credits/{thing}", params={"team_id": mine.team.team_id})
        detail = f"Cannot access {words} for a different team"
        assert (answer.status_code, answer.json()) == (httpx.codes.FORBIDDEN, {"detail": detail})


def filled(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", quote(value))
    assert "{" not in path, f"no id for {path}"
    return path
