"""Bounds on the number of tokens a matrix can recall, against whole numbers, other formulas and draws."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from amem_core import AssociationProblem, tightest_margin
from amem_core.capacity import log_counting_bound, log_failure_bound, wendel_probability
from amem_core.landscape import separable
from amem_core.storage import outer_products
from tests.oracles import refuses


def cells(n, D):
    """Cells of n hyperplanes in general position through the origin, by removing one of them."""
    return 2 if D == 1 or n == 1 else cells(n - 1, D) + cells(n - 1, D - 1)


def test_wendels_probability_is_a_share_of_cells():
    for N, d in itertools.product(range(1, 9), range(1, 6)):
        assert Fraction(wendel_probability(N, d)) == Fraction(cells(N, d), 2**N)


def test_wendels_probability_is_that_of_drawn_problems():
    drawn = [separable(AssociationProblem.spherical(5, 2, 3, seed=seed)) for seed in range(200)]
    # 11/16; four deviations
    assert wendel_probability(5, 3) == 11 / 16
    assert abs(np.mean(drawn) - 11 / 16) < 4 * math.sqrt(11 / 16 * 5 / 16 / 200)


@pytest.mark.parametrize(("N", "d"), [(3, 1), (4, 2), (7, 2), (9, 3), (2, 4)])
def test_the_counting_bound_in_whole_numbers(N, d):
    planes = N * math.comb(N, 2)
    exact = Fraction(2 * sum(math.comb(planes - 1, k) for k in range(d * d)), math.factorial(N))
    assert math.isclose(log_counting_bound(N, d), math.log(exact), rel_tol=1e-9, abs_tol=1e-9)


def test_the_counting_bound_falls_below_one_beyond_two_d_squared():
    for d in (20, 60):
        assert log_counting_bound(int(2.8 * d * d), d) < 0 < log_counting_bound(int(1.5 * d * d), d)


@pytest.mark.parametrize(("N", "d"), [(3, 50), (100, 300), (1600, 512)])
def test_the_failure_bound_is_the_least_over_both_parameters(N, d):
    def bound(eps, theta):
        tau = (1 - mpmath.mpf(eps)) ** 1.5 / mpmath.sqrt(2)
        spoiled = mpmath.exp(-theta * tau) * (1 - (theta / d) ** 2) ** (-(N - 2) / mpmath.mpf(2))
        return N**2 * (mpmath.exp(-d * mpmath.mpf(eps) ** 2 / 2) + spoiled)

    found = log_failure_bound(N, d)
    tried = [bound(e, d * s) for e in np.linspace(0.02, 0.9, 200)[::3] for s in np.linspace(1e-3, 0.999, 60)]
    least = float(mpmath.log(min(tried)))
    # a grid that is coarser in both: not below, and not far above
    assert found <= least + 1e-9 and least - found < 0.05 * abs(found) + 0.1


def test_outer_products_fail_less_often_than_the_bound():
    N, d = 20, 200
    batch = AssociationProblem.stack([AssociationProblem.spherical(N, N, d, seed=seed) for seed in range(50)])
    failed = (tightest_margin(outer_products(batch), batch) <= 0).any(-1).double().mean()
    assert torch.log(failed) <= log_failure_bound(N, d) < 0


def test_bad_sizes_are_refused():
    for function, least in ((wendel_probability, 1), (log_counting_bound, 2), (log_failure_bound, 3)):
        with refuses("N"):
            function(least - 1, 3)
        with refuses("d"):
            function(4, 0)
