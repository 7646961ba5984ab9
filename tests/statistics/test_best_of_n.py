"""Best of n without sampling again."""

from itertools import combinations
from math import log
from statistics import mean

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.statistics import best_of_n, kl_best_of_n


@all_of(st.lists(st.tuples(st.integers(-3, 3), st.floats(-5, 5)), min_size=1, max_size=7), st.data())
def test_it_is_the_mean_over_all_subsets(said: list[tuple[int, float]], data: st.DataObject) -> None:
    """Of equal proxy scores the later answer is taken."""
    n = data.draw(st.integers(1, len(said)))
    subsets = combinations([(proxy, index, value) for index, (proxy, value) in enumerate(said)], n)
    expected = mean(max(subset)[2] for subset in subsets)
    found = best_of_n([float(proxy) for proxy, _ in said], [value for _, value in said], n)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [0, 3])
def test_n_is_from_one_to_the_number_of_answers(n: int) -> None:
    with pytest.raises(ValueError, match=f"^n = {n}, expected 1 to 2$"):
        best_of_n([1.0, 2.0], [1.0, 2.0], n)


def test_the_divergence_is_that_of_the_best_of_many_distinct_items() -> None:
    size, n = 4000, 5
    tops = [((rank + 1) / size) ** n - (rank / size) ** n for rank in range(size)]
    assert kl_best_of_n(n) == pytest.approx(sum(p * log(p * size) for p in tops if p), rel=1e-2)
    assert kl_best_of_n(1) == 0.0
