"""The models that a key may ask for, as OpenAI lists them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api.auth import Caller
from api.gateway.face import GATEWAY
from api.http import endpoint
from api.wire.gateway_models import ModelList, ModelRow, ModelsQuery
from shared import visible_models
from shared.errors import NotFound, UnknownModel
from shared.keys import Key
from shared.prices import PriceMap
from shared.runtime import Runtime
from shared.visible_models import Visible

GROUP_OWNER = "waybill"


@endpoint("team", answers=ModelList, face=GATEWAY)
async def list_models(rt: Runtime, caller: Caller, query: ModelsQuery) -> dict[str, Any]:
    """All models that this key may ask for: aliases, and groups of them."""
    found = await _visible(rt, caller.team)
    return {"object": "list", "data": [_row(model, rt.prices, query) for model in found]}


@endpoint("team", answers=ModelRow, face=GATEWAY)
async def get_model(rt: Runtime, caller: Caller, model: str, query: ModelsQuery) -> dict[str, Any]:
    """One model that this key may ask for; its id may hold slashes."""
    if not model:
        raise NotFound("Not Found")
    # Postgres refuses NUL characters; nothing has such a name.
    found = () if "\x00" in model else await _visible(rt, caller.team, model)
    if not found:
        raise UnknownModel(f"The model '{model}' does not exist or you do not have access to it")
    return _row(found[0], rt.prices, query)


async def _visible(rt: Runtime, key: Key, name: str | None = None) -> Sequence[Visible]:
    """Names of models with the key's own names for them, sorted; of this name only where one is given."""
    wanted = None if name is None else [key.aliases.get(name, name)]
    # A key that is narrowed to a name of its own may use what that stands for, under that name only.
    behind = [stands for asked, stands in key.aliases.items() if asked in (key.models or ())]
    async with rt.db.hot_statement() as tx:
        found = _by_name(await visible_models.of_key(tx, key.team_id, only=key.models, names=wanted))
        reached = _by_name(await visible_models.of_key(tx, key.team_id, only=behind, names=behind)) if behind else {}
    all_of = {asked: found | reached if asked in (key.models or ()) else found for asked in key.aliases}
    own = {
        asked: replace(all_of[asked][stands], name=asked)
        for asked, stands in key.aliases.items()
        if stands in all_of[asked]
    }
    named = {known: model for known, model in found.items() if known not in key.aliases} | own
    return [named[known] for known in sorted(named) if name in {None, known}]


def _by_name(models: Sequence[Visible]) -> dict[str, Visible]:
    return {model.name: model for model in models}


def _row(model: Visible, prices: PriceMap, query: ModelsQuery) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.provider or GROUP_OWNER,
    }
    if not query.include_metadata:
        return row
    bundled = None if model.litellm_model is None else prices.of(model.litellm_model)
    largest = bundled.max_output_tokens if bundled else None
    return {
        **row,
        "mode": bundled.mode if bundled else None,
        "max_input_tokens": bundled.max_input_tokens if bundled else None,
        "max_output_tokens": largest if model.max_output_tokens is None else model.max_output_tokens,
    }
