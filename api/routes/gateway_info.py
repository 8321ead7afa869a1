"""Users, teams and costs as LiteLLM's clients read them; nothing here is written or booked."""

from typing import Any

from api.auth import Caller
from api.gateway import info_objects, named_keys, prices
from api.gateway.face import GATEWAY
from api.gateway.info_bodies import CostIn, CostQuery, TeamQuery, UserQuery
from api.gateway.info_objects import Person
from api.http import endpoint
from api.once import Once
from api.wire.gateway_keys import CostOut, TeamInfoOut, UserInfoOut
from shared import admin_users, credit_accounts, estimate, ids, money, names, teams, usage, users
from shared.db import CoreTx
from shared.errors import BadRequest, Forbidden, NotFound
from shared.key_views import Filter
from shared.runtime import Runtime

NO_MODEL = "Either 'model' or 'completion_response' must be provided"
NO_MESSAGES = "messages must be provided if 'model' is provided"


@endpoint("any", answers=UserInfoOut, face=GATEWAY)
async def user_info(rt: Runtime, caller: Caller, query: UserQuery) -> dict[str, Any]:
    """A user with the keys that carry the id: the user of the caller's key, or for admins any.

    A key sees what its own organization has of its user.
    """
    own = caller.key
    user_id = query.user_id or (own.user_id if own is not None else None)
    if user_id is None:
        raise BadRequest("user_id is needed: an admin, and a key without a user, have none", param="user_id")
    if own is not None and user_id != own.user_id:
        raise Forbidden("Cannot access a different user", param="user_id")
    organization_id = None if own is None else own.organization_id
    wanted = Filter(user_id=user_id, organization_id=organization_id, live=True)
    async with rt.db.statement() as tx:
        user = await users.get(tx, user_id, organization_id=organization_id)
        admin = await _admin_user(tx, user_id) if own is None else None
        if user is None and admin is None:
            raise NotFound(f"User {user_id} not found", param="user_id")
        keys = await named_keys.rows(tx, wanted, limit=query.key_limit, offset=query.key_offset)
    return info_objects.user(Person(user_id, user, admin), keys)


@endpoint("any", answers=TeamInfoOut, face=GATEWAY)
async def team_info(rt: Runtime, caller: Caller, query: TeamQuery) -> dict[str, Any]:
    """A team with its newest keys."""
    team_id = query.team_id
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access a different team", param="team_id")
    async with rt.db.statement() as tx:
        team = await teams.get(tx, team_id) if names.is_name(team_id) else None
        if team is None:
            raise NotFound(f"Team not found, passed team id: {team_id}", param="team_id")
        used = (await usage.totals_of_teams(tx, [team_id]))[team_id]
        account = (await credit_accounts.balances(tx, [team_id]))[team_id]
        keys = await named_keys.rows(tx, Filter(team_id=team_id, live=True), limit=query.key_limit, offset=0)
    return info_objects.team(team, account, used, keys)


@endpoint("any", answers=CostOut, face=GATEWAY)
async def spend_calculate_get(rt: Runtime, caller: Caller, query: CostQuery) -> dict[str, Any]:
    """What so many tokens of a model cost; books nothing."""
    if query.model is None:
        raise BadRequest(NO_MODEL, param="model")
    tokens = {"prompt_tokens": query.prompt_tokens, "completion_tokens": query.completion_tokens}
    return await _cost(rt, caller, query.model, tokens, "query")


@endpoint("any", answers=CostOut, face=GATEWAY)
async def spend_calculate_post(rt: Runtime, caller: Caller, body: CostIn, once: Once) -> dict[str, Any]:
    """What a prompt would cost, or an answered completion did; books nothing and calls nobody."""
    answered = body.completion_response
    model = body.model if answered is None else answered.model or body.model
    if model is None:
        raise BadRequest(NO_MODEL, param="model")
    if answered is not None:
        tokens = answered.usage.tokens
    elif body.messages is not None:
        tokens = {"prompt_tokens": estimate.prompt_tokens({"messages": body.messages}), "completion_tokens": 0}
    else:
        raise BadRequest(NO_MESSAGES, param="messages")
    return await once.store(await _cost(rt, caller, model, tokens, "body"))


async def _cost(rt: Runtime, caller: Caller, model: str, tokens: dict[str, int], place: str) -> dict[str, Any]:
    async with rt.db.statement() as tx:
        nanousd = await prices.cost_nanousd(rt, tx, caller, model, tokens, place)
    return {"cost": money.usd(nanousd)}


async def _admin_user(tx: CoreTx, user_id: str) -> admin_users.User | None:
    parsed = ids.parse(user_id)
    return None if parsed is None else await admin_users.get(tx, parsed)
