"""Who votes, what a vote weighs, and how sure the ballot is of its leader."""

from __future__ import annotations

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.solve import solve
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.settle import Rule
from reason_engine.strategies.voting.votes import best_voter, count_votes
from reason_engine.types import Path, Problem, TokenLogprob, Vote
from tests.strategies.voting.run import context, notes, path

WEAK = {"strength": "weak"}


async def counted(*paths: Path, ballot: Ballot | None = None) -> Ballot:
    found = ballot or Ballot(len(paths))
    await found.count(context(), paths)
    return found


async def shares(*paths: Path) -> tuple[str | None, float | None]:
    ctx, ballot = context(), Ballot(len(paths))
    await ballot.count(ctx, paths)
    answer = await ballot.answer(ctx)
    return answer.value, answer.confidence


async def test_the_confidence_is_the_leaders_share_of_all_paths_those_that_abstain_too() -> None:
    assert await shares(path(0, "4"), path(1, "4"), path(2, "5"), path(3), path(4)) == ("4", pytest.approx(2 / 5))
    assert await shares(path(0), path(1)) == (None, None)


async def test_a_weak_reading_abstains_while_half_of_the_paths_have_a_strong_one() -> None:
    strong, weak = [path(0, "4"), path(1, "4")], [path(i, "9", **WEAK) for i in (2, 3, 4)]
    ballot = await counted(*strong, *weak[:2])
    assert ballot.votes == (Vote("4", 2, 2.0),)
    ballot = await counted(*strong, *weak)  # two of five are no half
    assert ballot.votes == (Vote("9", 3, 3.0), Vote("4", 2, 2.0))
    mixed = await counted(path(0, "4", **WEAK), path(1, "4", **WEAK))
    assert mixed.votes == (Vote("4", 2, 2.0),)


async def test_who_abstains_is_found_anew_at_every_count() -> None:
    ctx, ballot = context(), Ballot(6)
    await ballot.count(ctx, [path(0, "4"), path(1, "9", **WEAK), path(2, "9", **WEAK)])
    assert ballot.votes[0] == Vote("9", 2, 2.0)
    await ballot.count(ctx, [path(3, "4"), path(4, "4")])
    assert ballot.votes == (Vote("4", 3, 3.0),)
    assert notes(ctx)["abstained"] == 2


async def test_a_forced_answer_weighs_its_probability() -> None:
    forced = [path(i, "9", strength="forced", weight=0.6, cut=True) for i in (1, 2)]
    ballot = await counted(path(0, "4"), *forced)
    assert ballot.votes == (Vote("9", 2, pytest.approx(1.2)), Vote("4", 1, 1.0))
    assert await shares(path(0, "4"), *forced) == ("9", pytest.approx(1.2 / 3))
    assert await shares(path(0, "4"), *forced[:1]) == ("4", pytest.approx(1 / 2))


async def test_a_path_that_was_ended_votes_only_with_a_whole_answer() -> None:
    whole = path(0, "4", "so \\boxed{4} and so on and so", finish_reason="length")
    broken = path(1, "7", "Answer: 7", finish_reason="length")  # may have been going to be 72
    assert (await counted(whole, broken)).votes == (Vote("4", 1, 1.0),)


async def test_the_strategys_own_weights_count_in_units_of_the_mean_voter() -> None:
    weights = {0: 3.0, 1: 1.0, 2: 0.0}
    ballot = Ballot(4, weigh=lambda p: weights.get(p.node, 0.0))
    ctx = context()
    await ballot.count(ctx, [path(0, "4"), path(1, "5"), path(2, "5"), path(3)])
    assert ballot.votes == (Vote("4", 1, 3.0), Vote("5", 1, 1.0))
    assert (await ballot.answer(ctx)).confidence == pytest.approx(1.5 / 4)
    assert notes(ctx)["weights"] == [["4", 3.0], ["5", 1.0]]


async def test_of_equal_answers_the_heaviest_then_the_most_certain_path_is_shown() -> None:
    ctx, ballot = context(), Ballot(3)
    forced = path(0, "1/2", strength="forced", weight=0.9)
    await ballot.count(ctx, [forced, path(1, "0.5"), path(2, "3")])
    answer = await ballot.answer(ctx)
    assert answer.path and answer.path.node == 1 and answer.votes[0].count == 2


async def test_answers_with_as_many_votes_are_ranked_by_their_most_certain_path() -> None:
    def told(node: int, answer: str, logprob: float) -> Path:
        return path(node, answer, logprobs=(TokenLogprob(0, answer, logprob),))

    split = [told(0, "4", -2.0), told(1, "5", -0.5), told(2, "6", -1.0), told(3, "6", -9.0)]
    assert [vote.answer for vote in (await counted(*split)).votes] == ["6", "5", "4"]
    assert [vote.answer for vote in (await counted(path(0, "4"), path(1, "5"))).votes] == ["4", "5"]


async def test_a_wave_is_closed_only_where_no_path_to_come_can_turn_the_vote() -> None:
    ctx, three = context(), [path(0, "a"), path(1, "a"), path(2, "b"), path(3, "a")]
    even = Ballot(5, Rule(0.8)).until(ctx)
    assert even is not None
    assert even(three)
    assert not even(three[:3])
    # One path to come may be as heavy as the heaviest so far: 4 against 2.5 + 2.5.
    uneven = Ballot(6, Rule(0.8), lambda p: 2.5 if p.node == 2 else 1.0).until(ctx)
    assert uneven is not None
    assert not uneven([*three, path(4, "a")])
    # Three that abstain leave two that can still turn it.
    assert not even([path(0, "a"), path(1), path(2)])
    assert Ballot(5).until(ctx) is None
    # Two weak ones more and the weak readings would vote, and win.
    weak = [path(i, "b", **WEAK) for i in (4, 5, 6)]
    of_eight = Ballot(8, Rule(0.8)).until(ctx)
    assert of_eight is not None
    assert not of_eight([*three[:2], three[3], *weak])
    assert of_eight([*[path(i, "a") for i in range(5)], *weak[:1]])


async def test_a_ballot_is_decided_only_where_no_path_to_come_can_turn_it_or_the_lead_is_certain() -> None:
    ballot = Ballot(6, Rule(0.99), lambda p: 2.5 if p.node == 4 else 1.0)
    assert ballot.wave == 4
    await ballot.count(context(), [path(i, "a") for i in range(4)] + [path(4, "b")])
    assert not ballot.decided  # 4 against 2.5, and one of 2.5 to come
    assert ballot.wave == 1
    surer = await counted(*[path(i, "a") for i in range(5)], ballot=Ballot(16, Rule(0.9)))
    assert surer.decided


async def test_votes_of_searches_are_counted_by_given_weights() -> None:
    ctx, paths = context(), [path(0, "4"), path(1), path(2, "5"), path(3, "4.0")]
    assert await count_votes(ctx, paths, [1.0, 9.0, 3.0, 1.0]) == (Vote("5", 1, 3.0), Vote("4", 2, 2.0))
    assert (await best_voter(ctx, paths, "5")).node == 2


async def test_a_first_wave_may_show_that_a_number_is_wanted() -> None:
    texts = ["so \\boxed{72}", "\\boxed{72} clips", "the total is \\boxed{70}", "it is hard to say"]
    engine = Scripted(lambda p, s, i: texts[i])
    outcome = await solve(SelfConsistency(n=4), Problem("Tell me about the clips."), engine)
    assert (outcome.answer.value, outcome.answer.confidence) == ("72", pytest.approx(0.5))


async def test_a_verifier_does_not_choose_a_path_that_abstains() -> None:
    texts = ["sure sure", "so \\boxed{5}", "so \\boxed{6}"]
    engine = Scripted(
        lambda p, s, i: texts[i % 3], logprob=lambda p, t: {"sure": -0.01, "\\boxed{6}": -0.1}.get(t.strip(), -2)
    )
    outcome = await solve(BestOfN(n=3), Problem("What is the sum of 2 and 4?"), engine)
    assert outcome.answer.value == "6"
    none = Scripted(lambda p, s, i: texts[0])
    outcome = await solve(BestOfN(n=3, answer_kind="free"), Problem("What is the sum of 2 and 4?"), none)
    assert (outcome.answer.value, outcome.content) == (None, "sure sure")
