"""What tokens of a model cost, for whom asks: a team by the names it may use and with its markup, an admin at cost."""

from collections.abc import Mapping

from api.auth import Caller
from shared import model_aliases, models, money
from shared.db import Tx
from shared.errors import Invalid, UnknownModel
from shared.keys import Key
from shared.prices import Price
from shared.routing import question
from shared.runtime import Runtime


async def cost_nanousd(rt: Runtime, tx: Tx, caller: Caller, model: str, tokens: Mapping[str, int], place: str) -> int:
    """The client cost for a team, the provider cost for an admin.

    tokens: prompt_tokens, completion_tokens and, where known, cached_tokens. place: `body` or `query`, where the model
    was named. Raises Unpriced, and Forbidden for a model that team or key may not use.
    """
    price = await (_of_any(rt, tx, model) if caller.key is None else _of_team(rt, tx, caller.key, model))
    if price is None:
        raise Invalid.unpriced(place, "model")
    cost = price.cost_nanousd(**tokens)
    return cost if caller.key is None else money.with_markup(cost, caller.key.cost_markup_percentage)


async def _of_team(rt: Runtime, tx: Tx, key: Key, model: str) -> Price | None:
    try:
        asked = question(key, model)
        route = await models.resolve(tx, key.team_id, asked.name, only=asked.only, known_as=model)
    except UnknownModel:
        return _bundled(rt, model)
    return rt.prices.price_of(route.candidates[0])


async def _of_any(rt: Runtime, tx: Tx, model: str) -> Price | None:
    alias = await model_aliases.get(tx, model)
    return _bundled(rt, model) if alias is None else rt.prices.price_of(alias)


def _bundled(rt: Runtime, model: str) -> Price | None:
    """A provider's model that is nobody's alias here: its price is public."""
    return rt.prices.price(model, input_=None, output=None, cached_input=None)
