"""Where a call may go: its model's candidates that can be billed and have a credential."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from shared import models
from shared.db import Tx
from shared.errors import Invalid, KeyModelDenied, Unavailable, UnknownModel, WaybillError
from shared.keys import Key
from shared.models import Candidate, Route
from shared.runtime import Runtime
from shared.sizing import may_be_billed

Find = Callable[[str], Awaitable[Route]]
"""The candidates of one name, as `route` finds them."""


class Question(NamedTuple):
    """What decides a route: the team, the name it asks for (None: its default), the names its key is narrowed to."""

    team_id: str
    name: str | None
    only: tuple[str, ...] | None


def question(key: Key, asked: str | None) -> Question:
    """What has to be decided for a call that asks for this name, which may be one of the key's own (`aliases`).

    A key that is narrowed to a name of its own may use what that stands for.
    """
    name = None if asked is None else key.aliases.get(asked, asked)
    only = tuple(key.models) if key.models else None
    if only is not None and name is not None and name != asked and asked in only:
        only = (*only, name)
    return Question(key.team_id, name, only)


async def route(rt: Runtime, tx: Tx, key: Key, name: str | None, loc: Sequence[str | int] = ("body",)) -> Route:
    """The candidates for a call that asks for this name (None: the team's default), as they are now.

    Raises Forbidden (access), BadRequest, Unpriced, Unavailable (no credential).
    """
    asked = question(key, name)
    return _usable(rt, await models.resolve(tx, key.team_id, asked.name, only=asked.only, known_as=name), loc)


async def with_fallbacks(find: Find, name: str, fallbacks: Sequence[str]) -> Route:
    """The candidates of the model, then those of the client's own fallbacks; what is wrong is told as OpenAI does.

    Raises as `find`; the error's `param` is `fallbacks` where it is about one of them.
    """
    first = await _found(find, name)
    others = [await _found(find, fallback, "fallbacks") for fallback in fallbacks]
    tried = {candidate.alias: candidate for found in (first, *others) for candidate in found.candidates}
    return replace(first, candidates=tuple(tried.values()))


async def _found(find: Find, name: str, param: str | None = None) -> Route:
    try:
        return await find(name)
    except UnknownModel:
        raise UnknownModel(f"The model '{name}' does not exist or you do not have access to it", param=param) from None
    except KeyModelDenied:
        raise KeyModelDenied(f"This API key does not have access to model '{name}'", param=param) from None
    except WaybillError as error:
        error.param = param or error.param
        raise


def _usable(rt: Runtime, found: Route, loc: Sequence[str | int]) -> Route:
    if not may_be_billed(rt, found.candidates[0]):
        raise Invalid.unpriced(*loc, "model")
    # A fallback without a price is left out: it could only fail, or be given away.
    usable = replace(found, candidates=tuple(c for c in found.candidates if may_be_billed(rt, c)))
    if not any(_has_credential(rt, candidate) for candidate in usable.candidates):
        provider = usable.candidates[0].provider
        raise Unavailable(
            f"No provider credentials configured for {provider}. Please add credentials in the admin dashboard.",
            retry_after_s=60,
        )
    return usable


def _has_credential(rt: Runtime, candidate: Candidate) -> bool:
    if candidate.has_key or candidate.api_base is not None:
        return True
    return rt.settings.provider_env_fallback and candidate.provider in rt.settings.providers_in_environment
