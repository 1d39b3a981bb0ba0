"""Intervals against brute force on a grid."""

from hypothesis import given
from hypothesis import strategies as st

from autotuner.analyze.intervals import intersect, length, subtract, union

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)


def cells(intervals):
    return {cell for start, end in intervals for cell in range(start, end)}


@given(spans, spans)
def test_arithmetic_is_that_of_sets(one, other):
    ours, theirs = union(one), union(other)
    assert cells(ours) == cells(one)
    assert cells(intersect(ours, theirs)) == cells(one) & cells(other)
    assert cells(subtract(ours, theirs)) == cells(one) - cells(other)
    assert length(ours) == len(cells(one))


@given(spans)
def test_a_union_is_disjoint_and_in_order(one):
    ends = [end for interval in union(one) for end in interval]
    assert ends == sorted(set(ends))


def test_what_touches_is_one():
    assert union([(0, 1), (1, 2)]) == [(0, 2)]
