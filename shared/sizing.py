"""What a call may come to: whether its model has a price, how many tokens it takes, what its team is to hold for it."""

from collections.abc import Mapping
from typing import Any

from shared import estimate, money
from shared.charging import MOST_NANOUSD
from shared.keys import Key
from shared.models import Candidate, Route
from shared.runtime import Runtime
from shared.wire.chat import request_text


def may_be_billed(rt: Runtime, candidate: Candidate) -> bool:
    """Whether it is known what this candidate costs, or an admin said that it may be given away."""
    return rt.prices.price_of(candidate) is not None or candidate.allow_unpriced


def sized(rt: Runtime, key: Key, route: Route, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the row of a new call says of its model, its request and its estimate, by the names of NewCall."""
    prompt = estimate.prompt_tokens(request)
    output = max(estimate.output_tokens(request, _max_output(rt, candidate)) for candidate in route.candidates)
    nanousd = _most_nanousd(rt, route, key, prompt, output)
    return {
        "team_id": key.team_id,
        "key_id": key.id,
        "model": route.asked,
        "candidates": [candidate.alias for candidate in route.candidates],
        "request": request_text(request),
        "estimated_prompt_tokens": prompt,
        "estimated_output_tokens": output,
        "estimate_nanousd": nanousd,
        "budget_ids": list(key.budget_ids) if key.budget_ids and nanousd else None,
    }


def _most_nanousd(rt: Runtime, route: Route, key: Key, prompt_tokens: int, output_tokens: int) -> int:
    """What the call costs its team at most: at the dearest candidate, with every estimated token used."""
    prices = [price for candidate in route.candidates if (price := rt.prices.price_of(candidate)) is not None]
    costs = [price.most_nanousd(prompt_tokens=prompt_tokens, completion_tokens=output_tokens) for price in prices]
    return min(money.with_markup(max(costs, default=0), key.cost_markup_percentage), MOST_NANOUSD)


def _max_output(rt: Runtime, candidate: Candidate) -> int | None:
    if candidate.max_output_tokens is not None:
        return candidate.max_output_tokens
    bundled = rt.prices.of(candidate.litellm_model)
    return None if bundled is None else bundled.max_output_tokens
