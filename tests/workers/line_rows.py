"""Lines of batches, as they stand once a batch was checked: rows made directly, nothing held for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from shared import ids
from shared.messages import RunCalls, RunLines
from tests.scene import Scene, Team

JOB = """
insert into jobs (id, team_id, organization_id, job_type, status, is_batch, auto_complete, calls_total, started_at,
                  deadline_at, budget_mode)
select :id, t.id, t.organization_id, 'batch', 'in_progress', true, true, :lines, app_now(),
       app_now() + make_interval(secs => :window_s), t.budget_mode
  from teams t where t.id = :team returning id
"""

BATCH = """
insert into batches (id, team_id, key_id, endpoint, status, input_file_id, completion_window, lines, expires_at)
select :id, :team, :key, 'chat', 'in_progress', :id, '24h', :lines, app_now() + make_interval(secs => :window_s)
returning id
"""

CALLS = """
insert into calls (id, job_id, team_id, key_id, position, priority, batched, custom_id, model, candidates,
                   estimated_prompt_tokens, deadline_at)
select l.id, :job, :team, :key, l.n - 1, :priority, true, 'line-' || l.n, :model, array[cast(:model as text)],
       :tokens, app_now() + make_interval(secs => :window_s)
  from unnest(cast(:ids as uuid[])) with ordinality l(id, n) returning id
"""

PAYLOADS = """
insert into call_payloads (call_id, request)
select id, '{"messages": [{"role": "user", "content": "Hello"}]}' from calls where job_id = :job returning call_id
"""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Of one batch, in the order of the file."""

    job_id: UUID
    ids: list[UUID]


async def accepted(
    scene: Scene,
    team: Team,
    lines: int,
    *,
    tokens: int = 100,
    priority: int = 0,
    window_s: float = 86_400,
    model: str | None = None,
    key_id: UUID | None = None,
) -> Lines:
    """A batch of this team that runs; each line for the team's first model unless told."""
    job_id, made = ids.new(), [ids.new() for _ in range(lines)]
    key = key_id or (await scene.row("select id from virtual_keys where team_id = :team limit 1", team=team.id)).id
    facts = {"team": team.id, "key": key, "window_s": window_s}
    await scene.rows(JOB, id=job_id, lines=lines, team=team.id, window_s=window_s)
    await scene.rows(BATCH, id=job_id, lines=lines, **facts)
    chosen = {"model": model or team.models[0], "tokens": tokens, "priority": priority}
    await scene.rows(CALLS, job=job_id, ids=made, **chosen, **facts)
    await scene.rows(PAYLOADS, job=job_id)
    return Lines(job_id=job_id, ids=made)


def bells(scene: Scene, kind: type[RunCalls] | type[RunLines] = RunLines) -> list[UUID]:
    """What was rung since the last look, in order; it is forgotten."""
    rung = [id_ for message in scene.rung if isinstance(message, kind) for id_ in message.ids]
    scene.rung[:] = [message for message in scene.rung if not isinstance(message, kind)]
    return rung


async def of_teams(scene: Scene, line_ids: Sequence[UUID]) -> dict[str, int]:
    """How many of these each team has."""
    found = await scene.rows(
        "select team_id, count(*) as n from calls where id = any(:ids) group by team_id", ids=list(line_ids)
    )
    return {row.team_id: row.n for row in found}


async def team_with(scene: Scene, **fields: object) -> Team:
    """A team with these limits, or this weight."""
    team = await scene.team()
    for name, value in fields.items():
        await scene.rows(f"update teams set {name} = :value where id = :id returning id", value=value, id=team.id)
    return team


async def at(scene: Scene, provider: str) -> Team:
    """A team whose models are of this provider."""
    return await scene.team(alias={"litellm_model": f"{provider}/some-model"})


async def key_of(scene: Scene, team: Team, **limits: int) -> UUID:
    """Another key of the team."""
    columns = "".join(f", {name}" for name in limits)
    values = "".join(f", {value}" for value in limits.values())
    query = f"""insert into virtual_keys (id, hash, hint, team_id{columns})
                values (gen_random_uuid(), sha256(gen_random_uuid()::text::bytea), '', :team{values}) returning id"""
    found: UUID = (await scene.row(query, team=team.id)).id
    return found


async def state_of(scene: Scene, line: UUID) -> tuple[str, bool, int]:
    """Its state, whether it counts as rung, and its failures."""
    row = await scene.row("select state, rung_at is not null as rung, failures from calls where id = :id", id=line)
    return row.state, row.rung, row.failures
