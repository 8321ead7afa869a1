"""Which models a call may try: the asked name, what its team holds, and the order of candidates.

asked name -> alias the team may use -> that alias, then its fallbacks
           -> group the team holds   -> its active members by priority
no name    -> the team's default model, else the first alias of its groups
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.credential_choice import CHOSEN
from shared.db import Tx, hot
from shared.errors import BadRequest, Forbidden, KeyModelDenied, NotFound, TeamModelDenied, UnknownModel

# `only` are the names that the key is narrowed to, aliases or groups; null: all that its team may use.
RESOLVE = f"""
with wanted as (
    select coalesce(
        %(asked)s::text,
        case when %(only)s::text[] is null or t.default_model = any(%(only)s)
               or exists (select from model_access_group_members m
                           where m.alias = t.default_model and m.group_name = any(%(only)s)
                              or m.group_name = t.default_model and m.alias = any(%(only)s)) then t.default_model end,
        (select m.alias
           from team_access_groups h
           join model_access_groups g on g.group_name = h.group_name and g.status = 'active'
           join model_access_group_members m on m.group_name = h.group_name
           join model_aliases a on a.alias = m.alias and a.active
          where h.team_id = t.id and (%(only)s::text[] is null or array[m.alias, m.group_name] && %(only)s)
          order by h.position, h.group_name, m.priority, m.position limit 1)) as name
      from teams t where t.id = %(team_id)s
), found as (
    select 'alias' as role, 0 as place, a.alias,
           (select bool_or(%(only)s::text[] is null or array[m.alias, m.group_name] && %(only)s)
              from team_access_groups h
              join model_access_groups g on g.group_name = h.group_name and g.status = 'active'
              join model_access_group_members m on m.group_name = h.group_name
             where h.team_id = %(team_id)s and m.alias = a.alias) as held
      from wanted w join model_aliases a on a.alias = w.name
    union all
    select 'fallback', f.place, f.alias, true
      from wanted w
      join model_aliases a on a.alias = w.name
     cross join unnest(a.fallbacks) with ordinality as f(alias, place)
    union all
    select 'member', row_number() over (order by m.priority, m.position), m.alias,
           %(only)s::text[] is null or array[m.alias, m.group_name] && %(only)s
      from wanted w join model_access_group_members m on m.group_name = w.name
)
select w.name, g.status as group_status,
       exists (select from team_access_groups h where h.team_id = %(team_id)s and h.group_name = w.name) as group_held,
       f.role, f.held, a.active, a.alias, a.litellm_model, a.provider,
       a.input_nanousd_per_mtok, a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok,
       a.allow_unpriced, a.max_output_tokens, a.api_key_sealed is not null or chosen.id is not null as has_key,
       a.api_base
  from wanted w
  join teams t on t.id = %(team_id)s
  left join model_access_groups g on g.group_name = w.name
  left join (found f join model_aliases a on a.alias = f.alias) on true
  {CHOSEN}
 order by f.place
"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One alias a call may be tried at. Prices are the alias's own; null: look in the price map.

    has_key: its own, or that of a provider credential; a key in the environment is not known here.
    """

    alias: str
    litellm_model: str
    provider: str
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    cached_input_nanousd_per_mtok: int | None
    allow_unpriced: bool
    max_output_tokens: int | None
    has_key: bool
    api_base: str | None


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a call was asked for and where it may go, best first; never empty."""

    asked: str
    candidates: tuple[Candidate, ...]


class Found(NamedTuple):
    """A line of what the statement brings: what the name is to the team, and one alias it leads to (or none).

    held: whether team and key may use the alias; None where already the team may not. A fallback needs no access.
    """

    name: str | None
    group_status: str | None
    group_held: bool
    role: str | None
    held: bool | None
    active: bool | None
    candidate: Candidate | None


async def resolve(
    tx: Tx, team_id: str, asked: str | None, *, only: Sequence[str] | None = None, known_as: str | None = None
) -> Route:
    """The route of a call that asks for this name, or for none. known_as: the client's own name for what it asks for.

    Raises UnknownModel, TeamModelDenied, KeyModelDenied, Forbidden (a group without models), BadRequest (nothing to
    default to), NotFound (team). only: aliases and groups that the key is narrowed to; none at all means everything its
    team may use.
    """
    rows = await hot(tx, RESOLVE, {"team_id": team_id, "asked": asked, "only": list(only) if only else None})
    return decide(team_id, known_as or asked, [_found(row) for row in rows])


def decide(team_id: str, asked: str | None, found: Sequence[Found]) -> Route:
    """The route, from what is known of the name; `found` is in the order of trying. Raises as `resolve`.

    asked: the name as the client knows it.
    """
    if not found:
        raise NotFound(f"Team '{team_id}' not found")
    name = found[0].name
    if name is None:
        raise BadRequest(f"No model given and team '{team_id}' has no default model")
    candidates = _unique(_by_alias(found) or _by_group(found))
    if candidates:
        return Route(asked=asked or candidates[0].alias, candidates=candidates)
    raise _refusal(team_id, asked or name, found)


def _by_alias(found: Sequence[Found]) -> list[Candidate]:
    if not any(row.role == "alias" and row.active and row.held for row in found):
        return []
    return _active(found, "alias") + _active(found, "fallback")


def _by_group(found: Sequence[Found]) -> list[Candidate]:
    group = found[0]
    return _active(found, "member") if _is_open(group) else []


def _is_open(group: Found) -> bool:
    return group.group_held and group.group_status == "active"


def _active(found: Sequence[Found], role: str) -> list[Candidate]:
    return [row.candidate for row in found if row.role == role and row.active and row.held and row.candidate]


def _unique(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    return tuple({candidate.alias: candidate for candidate in candidates}.values())


def _refusal(team_id: str, name: str, found: Sequence[Found]) -> Forbidden:
    group = found[0]
    narrowed = any(row.role == "member" and row.active for row in found)
    if _is_open(group) and not narrowed:
        return Forbidden(f"No active models configured for group '{name}'")
    alias = next((row for row in found if row.role == "alias"), None)
    if alias is not None:
        denied = KeyModelDenied if alias.active and alias.held is False else TeamModelDenied
        return denied(f"Team '{team_id}' does not have access to model alias '{name}'")
    if group.group_status is not None and (not group.group_held or _is_open(group)):
        denied = KeyModelDenied if _is_open(group) else TeamModelDenied
        return denied(f"Team '{team_id}' does not have access to model group '{name}'")
    return UnknownModel(f"Model group '{name}' not found or inactive")


def _found(row: Any) -> Found:
    candidate = Candidate(**{name: getattr(row, name) for name in Candidate.__dataclass_fields__}) if row.role else None
    return Found(row.name, row.group_status, row.group_held, row.role, row.held, row.active, candidate)
