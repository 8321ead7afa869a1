"""The teams and keys that the checks of the SDKs ask with: one for everything that can be asked, and refused."""

from pathlib import Path
from typing import Any

from tests.contract.sdk_world import Account, World
from tests.stack import PRICES, Stack
from tests.team import Team, accepted


async def world_of(stack: Stack, folder: Path) -> World:
    """New teams on this stack, and where it is."""
    seen = folder / "seen"
    seen.touch()
    return World(
        api_url=stack.api_url,
        control_url=stack.provider_url.removesuffix("/v1"),
        ground_truth=str(stack.folder / "ground-truth.jsonl"),
        seen=str(seen),
        accounts=await accounts(stack),
    )


async def accounts(stack: Stack) -> dict[str, Account]:
    """A key for each condition."""
    main, faults, foreign = await stack.team(rpm_limit=100_000), await stack.team(), await stack.team()
    for alias, fields in (
        (f"acme/{main.alias}", {"litellm_model": f"openai/{main.model}", **PRICES}),
        ("unpriced", {"litellm_model": "openai/nobody-knows-its-price"}),
        ("keyless", {"litellm_model": "anthropic/claude-x", "api_key": None, "api_base": None, **PRICES}),
    ):
        team = main if "/" in alias else faults
        await alias_of(stack, team, alias if "/" in alias else f"{alias}-{team.team_id}", **fields)
    more = {
        "unpriced": f"unpriced-{faults.team_id}",
        "keyless": f"keyless-{faults.team_id}",
        "foreign": foreign.alias,
        "unknown": "gpt-9",
    }
    return {
        "main": account(main, slashed=f"acme/{main.alias}", team_id=main.team_id),
        "faults": account(faults, **more),
        "broke": account(await stack.team(credits_allocated=0)),
        "suspended": await under(stack, "suspend", "suspended"),
        "paused": await under(stack, "pause", "paused"),
        "expired": await key_of(stack, foreign, expired=True),
        "blocked": await key_of(stack, foreign, blocked=True),
        "spent": await key_of(stack, foreign, max_budget=0),
        "tight": await key_of(stack, foreign, max_budget=0.5),
        "elsewhere": await key_of(stack, foreign, allowed_routes=["/v1/models"]),
        "choosy": await key_of(stack, foreign, models=["something-else"]),
        "limited": await key_of(stack, foreign, rpm_limit=0),
    }


def account(team: Team, **more: str) -> Account:
    return Account(key=team.key, alias=team.alias, model=team.model, more=more)


async def alias_of(stack: Stack, team: Team, alias: str, **fields: Any) -> None:
    body = {**stack._alias(alias, team.model, f"group-{team.team_id}", (alias,), {}), **fields}
    await stack._make("model-aliases", {name: value for name, value in body.items() if value is not None})


async def under(stack: Stack, verb: str, reason: str) -> Account:
    """A team that is suspended or paused."""
    team = await stack.team()
    accepted(await stack.admin.post(f"/api/teams/{team.team_id}/{verb}", json={"reason": reason}))
    return account(team)


async def key_of(stack: Stack, team: Team, *, expired: bool = False, **fields: Any) -> Account:
    """Another key of a team."""
    made = accepted(await stack.admin.post(f"/api/teams/{team.team_id}/keys", json=fields))
    if expired:
        await stack.sql(
            "update virtual_keys set expires_at = now() - interval '1 minute' where id = %s", made["key_id"]
        )
    return Account(key=made["virtual_key"], alias=team.alias, model=team.model)
