"""The ladder of epsilons: it finds the edge of any monotone curve, and knows what it did not try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlbench.conditions.attacks.ladder import Ladder


def climbed(ladder, breaks):
    """Return the verdict and the rungs that were tried."""
    rung, verdict, tried = ladder.first, None, []
    while verdict is None:
        tried.append(rung)
        rung, verdict = ladder.after(rung, breaks(rung))
    return verdict, tried


@given(st.integers(1, 7), st.integers(0, 7), st.sampled_from(["fast", "exact"]))
def test_a_ladder_finds_the_edge_of_any_monotone_curve(rungs, edge, mode):
    edge = min(edge, rungs)  # an image that survives the lowest `edge` rungs and no other
    verdict, tried = climbed(Ladder(rungs, mode), lambda rung: rung >= edge)
    assert verdict == edge
    assert len(tried) == len(set(tried))


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.sampled_from(["fast", "exact"]))
def test_what_is_implied_is_what_was_not_tried(breaks, mode):
    ladder = Ladder(len(breaks), mode)
    verdict, tried = climbed(ladder, breaks.__getitem__)
    assert sorted([*tried, *ladder.implied(verdict)]) == list(range(len(breaks)))
    # `exact` implies that larger balls break, `fast` that smaller ones do not.
    assert all((rung >= verdict) == (mode == "exact") for rung in ladder.implied(verdict))
