"""Exponents recovered from curves whose exponents are known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amem_core.rates import fit_rate
from tests.oracles import refuses

T = torch.logspace(2, 8, 31, dtype=torch.float64)


@given(st.floats(-3, 1), st.floats(0.01, 100), st.sampled_from([-1.0, 1.0]))
def test_a_pure_power_is_found_to_rounding(exponent, amplitude, sign):
    fit = fit_rate(T, sign * amplitude * T**exponent)
    assert abs(fit.exponent - exponent) < 1e-9
    assert abs(fit.amplitude / amplitude - 1) < 1e-6
    assert fit.ratios == () and fit.worst < 1e-9


@given(st.floats(-2, -0.2), st.floats(0.2, 3), st.floats(-0.5, 20))
def test_the_next_term_is_told_from_the_first(exponent, delta, ratio):
    fit = fit_rate(T, T**exponent * (1 + ratio * T**-delta), T**-delta)
    assert abs(fit.exponent - exponent) < 1e-6
    if abs(ratio) > 0.1:
        assert abs(fit.ratios[0] / ratio - 1) < 1e-2


def test_two_further_terms_are_told_apart():
    y = T**-1.0 * (3 + 2 * T**-0.5 - 7 * T.log() / T)
    fit = fit_rate(T, y, T**-0.5, T.log() / T)
    assert abs(fit.exponent + 1) < 1e-7
    assert abs(fit.ratios[0] * 3 / 2 - 1) < 1e-3 and abs(fit.ratios[1] * 3 / -7 - 1) < 1e-2


def test_a_logarithm_is_no_power():
    y = T.log() / T
    pure, with_log = fit_rate(T, y), fit_rate(T, y, T.log())
    assert not pure.agrees(-1.0)
    assert abs(with_log.exponent + 1) < 1e-6


def test_the_interval_covers_noise():
    covered = 0
    for seed in range(100):
        noise = torch.randn(len(T), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        covered += fit_rate(T, T**-0.5 * (1 + 0.01 * noise)).agrees(-0.5)
    assert covered >= 88  # 95% and more: three standard deviations below 95


def test_the_interval_covers_a_slow_second_term():
    assert fit_rate(T, T**-1.0 * (1 + 5 * T**-0.5)).agrees(-1.0)


@pytest.mark.parametrize(
    ("t", "y", "argument"),
    [
        (T[:5], T[:5], "y"),
        (T, T[:-1], "y"),
        (T.flip(0), T, "t"),
        (T - T[0], T, "t"),
        (T, T - T[3], "y"),
        (T, T * float("nan"), "y"),
    ],
)
def test_bad_curves_are_refused(t, y, argument):
    with refuses(argument):
        fit_rate(t, y)


def test_a_companion_of_another_length_is_refused():
    with refuses("companion"):
        fit_rate(T, T, T[:-1])
