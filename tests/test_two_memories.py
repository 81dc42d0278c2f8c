"""Constants of two correlated memories, against the flow itself and its symmetries."""

import math

import pytest
import torch
from scipy.optimize import brentq

from amem_core import AssociationProblem
from amem_core.dynamics import gradient_flow
from amem_core.rates import fit_rate
from amem_core.two_memories import slow_amplitude
from tests.oracles import refuses


@pytest.mark.parametrize(("alpha", "p1", "c"), [(-0.5, 0.75, 2.0), (-0.4, 0.9, 0.5), (-0.6, 0.4, 3.0)])
def test_the_amplitude_is_that_of_the_flow(alpha, p1, c):
    problem = AssociationProblem.two_tokens(alpha, p1, output_distance_squared=c)
    t = torch.logspace(5, 9, 25, dtype=torch.float64)
    m = gradient_flow(problem, times=t, tolerance=1e-13).tightest_margin
    distance = (m[:, 0] - m[:, 1]) / 2 - 0.5 * math.log(p1 / (1 - p1))
    power = (1 + alpha) / (1 - alpha)
    # the next terms, relative to this one: the nullcline and the clock
    fit = fit_rate(t, distance, t ** -(1 - power), t ** (-2 * power))
    found = math.copysign(fit.amplitude, float(distance[-1]))
    assert fit.agrees(-power)
    # an exponent that is off by delta changes the amplitude by t^delta, 1e9 at the most
    assert abs(found / slow_amplitude(alpha, p1, c) - 1) < 2 * fit.half_width * math.log(1e9) + 1e-4


def test_exchanging_the_tokens_changes_the_sign():
    for alpha, p1 in ((-0.3, 0.7), (-0.9, 0.99)):
        first, second = slow_amplitude(alpha, p1), slow_amplitude(alpha, 1 - p1)
        assert abs(first + second) < 1e-9 * abs(first)
    assert slow_amplitude(-0.3, 0.5) == 0


def test_the_distance_of_the_outputs_is_a_unit_of_time():
    power = (1 - 0.4) / (1 + 0.4)
    assert math.isclose(slow_amplitude(-0.4, 0.8, 6.0) * 3**power, slow_amplitude(-0.4, 0.8), rel_tol=1e-12)


def test_where_the_amplitude_vanishes_the_flow_settles_like_one_over_t():
    special = brentq(lambda alpha: slow_amplitude(alpha, 0.75), -0.5, -0.2, xtol=1e-10)
    t = torch.tensor([1e5, 1e8], dtype=torch.float64)
    for alpha, growth in ((special, 1.0), (special + 0.05, None)):
        m = gradient_flow(AssociationProblem.two_tokens(alpha, 0.75), times=t, tolerance=1e-13).tightest_margin
        scaled = t * ((m[:, 0] - m[:, 1]) / 2 - 0.5 * math.log(3))
        ratio = float(scaled[1] / scaled[0])
        assert abs(ratio - growth) < 0.02 if growth else ratio > 3


def test_bad_arguments_are_refused():
    for alpha in (-1.0, 0.0, 0.5, float("nan")):
        with refuses("alpha"):
            slow_amplitude(alpha, 0.75)
    for p1 in (0.0, 1.0, 2.0):
        with refuses("p1"):
            slow_amplitude(-0.5, p1)
    with refuses("c"):
        slow_amplitude(-0.5, 0.75, 0.0)
