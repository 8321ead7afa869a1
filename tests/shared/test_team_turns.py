"""Whose turn it is: shares of tokens follow the weights, nobody who comes back has to catch up, all room is used."""

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import ids
from shared.team_turns import Queue, TeamTurns, Turn


def turns_of(team: str, tokens: int, *, calls: int, weight: int = 1) -> list[Turn]:
    return [Turn(id=ids.new(), team_id=team, weight=weight, tokens=tokens) for _ in range(calls)]


def given_tokens(chosen: list[Turn]) -> Counter[str]:
    """Of each team, in all."""
    counted: Counter[str] = Counter()
    for turn in chosen:
        counted[turn.team_id] += turn.tokens
    return counted


def run(
    turns: TeamTurns,
    waiting: dict[str, list[Turn]],
    *,
    room: int,
    rounds: int,
    held: Mapping[str, object] | None = None,
) -> list[Turn]:
    """So many rounds of a dispatcher that reads at most `room` calls of a team; what is rung waits no more."""
    rung: list[Turn] = []
    for _ in range(rounds):
        seen = {
            team: Queue(turns=calls[:room], is_cut=len(calls) > room)
            for team, calls in waiting.items()
            if team not in (held or {})
        }
        chosen, _ = turns.choose(seen, room)
        turns.count(chosen)
        taken = {turn.id for turn in chosen}
        for team, calls in waiting.items():
            waiting[team] = [turn for turn in calls if turn.id not in taken]
        rung += chosen
    return rung


@settings(max_examples=15, deadline=None)
@given(
    room=st.integers(1, 40),
    large=st.integers(1, 400),
    small=st.integers(1, 400),
    weights=st.sampled_from([(3, 1), (1, 1), (7, 2), (1, 10)]),
)
def test_while_both_have_work_tokens_follow_the_weights(room: int, large: int, small: int, weights: tuple[int, int]):
    """Within what one call of each weighs, however many fit a round."""
    a, b = weights
    waiting = {
        "a": turns_of("a", large, calls=300, weight=a),
        "b": turns_of("b", small, calls=300, weight=b),
    }
    rounds = 300 // room
    counted = given_tokens(run(TeamTurns(), waiting, room=room, rounds=rounds))
    assert waiting["a"]
    assert waiting["b"]
    assert abs(counted["a"] / a - counted["b"] / b) <= large / a + small / b


def test_weights_of_three_to_one_give_three_to_one_within_five_percent_when_few_fit_a_round():
    waiting = {"a": turns_of("a", 100, calls=600, weight=3), "b": turns_of("b", 70, calls=600)}
    counted = given_tokens(run(TeamTurns(), waiting, room=3, rounds=150))
    assert counted["a"] / counted["b"] == pytest.approx(3, rel=0.05)


def test_who_comes_back_from_idleness_does_not_catch_up():
    waiting = {"a": turns_of("a", 10, calls=2000), "b": []}
    turns = TeamTurns()
    run(turns, waiting, room=10, rounds=50)

    waiting["b"] = turns_of("b", 10, calls=200)
    counted = given_tokens(run(turns, waiting, room=10, rounds=10))
    assert counted["a"] == counted["b"] == 500


def test_who_was_ahead_and_emptied_its_queue_does_not_begin_anew():
    """Else a team that hands in one call at a time would always be first."""
    turns, big = TeamTurns(), turns_of("big", 10, calls=1000)
    rung: list[Turn] = []
    for _ in range(60):
        waiting = {"big": big, "drip": turns_of("drip", 100, calls=1)}
        rung += run(turns, waiting, room=1, rounds=1)
        big = waiting["big"]
    counted = given_tokens(rung)
    assert abs(counted["drip"] - counted["big"]) <= 110


def test_who_was_held_gains_nothing_by_it():
    waiting = {"a": turns_of("a", 10, calls=2000), "b": turns_of("b", 10, calls=2000)}
    turns = TeamTurns()
    run(turns, waiting, room=10, rounds=30, held={"b": True})
    counted = given_tokens(run(turns, waiting, room=10, rounds=10))
    assert counted["a"] == counted["b"] == 500


def test_what_was_chosen_and_refused_costs_its_team_nothing():
    waiting = {"a": turns_of("a", 10, calls=100), "b": turns_of("b", 10, calls=100)}
    turns = TeamTurns()
    chosen, _ = turns.choose({team: Queue(turns=calls) for team, calls in waiting.items()}, 10)
    turns.count(turn for turn in chosen if turn.team_id == "b")
    chosen, _ = turns.choose({team: Queue(turns=calls) for team, calls in waiting.items()}, 5)
    assert chosen[0].team_id == "a"
    assert given_tokens(chosen) == {"a": 30, "b": 20}, "it was not charged, nor is anything made up for"


def test_all_room_is_used_while_anybody_waits():
    waiting = {"a": turns_of("a", 1000, calls=3, weight=100), "b": turns_of("b", 1, calls=100)}
    chosen, is_cut = TeamTurns().choose({team: Queue(turns=calls) for team, calls in waiting.items()}, 50)
    assert len(chosen) == 50
    assert not is_cut


def test_it_stops_where_the_next_turn_is_of_a_call_that_was_not_read():
    many, few = turns_of("many", 1, calls=5), turns_of("few", 100, calls=5)
    chosen, is_cut = TeamTurns().choose({"many": Queue(turns=many, is_cut=True), "few": Queue(turns=few)}, 10)
    assert [turn.team_id for turn in chosen] == ["many", "few", "many", "many", "many", "many"]
    assert is_cut


def test_ids_decide_nothing_and_each_teams_own_order_is_kept():
    calls = turns_of("a", 5, calls=4)
    shuffled = [calls[2], calls[0], calls[3], calls[1]]
    chosen, _ = TeamTurns().choose({"a": Queue(turns=shuffled)}, 3)
    assert [turn.id for turn in chosen] == [turn.id for turn in shuffled[:3]]
    assert all(isinstance(turn.id, UUID) for turn in chosen)
