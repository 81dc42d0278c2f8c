"""Closed forms against many digits, the dynamics they solve, and intervals for what is claimed sharp."""

import math

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amem_core import AssociationProblem, closed_forms, margins
from amem_core.closed_forms import (
    DEFECT_CONSTANT,
    LOSS_CONSTANT,
    TAIL,
    abel,
    clock,
    defect,
    descent_bounds,
    descent_constant,
    descent_margin,
    flow_margin,
    log_bound_threshold,
)
from amem_core.dynamics import gradient_descent, gradient_flow
from tests.oracles import refuses

D = torch.float64
steps_taken = st.integers(1, 400)
small_and_large = st.floats(-3, 2).map(lambda e: 10.0**e)  # a: 0.001 to 100


def many_digits(y: float, k: float) -> mpmath.mpf:
    """The m with exp(m) + k m = y, by mpmath's bisection-safe search on an increasing function."""
    with mpmath.workdps(50):
        y, k = mpmath.mpf(y), mpmath.mpf(k)
        high = mpmath.log(max(y, 1)) + 1
        low = min(-abs(y) / k - 2, mpmath.mpf(-2)) if k else mpmath.mpf(-1)
        return mpmath.findroot(lambda m: mpmath.exp(m) + k * m - y, (low, high), solver="anderson", tol=1e-60)


def walk(a: float, steps: int, m: float = 0.0, M: int = 2) -> list[float]:
    """Descent, one step after the other, in Python's floats."""
    path = [m]
    for _ in range(steps):
        m = m + a / (math.exp(m) + M - 1)
        path.append(m)
    return path


# ---- flow ----


@pytest.mark.parametrize("M", [2, 3, 10, 1000])
@pytest.mark.parametrize("t", [0.0, 1e-9, 0.3, 14.0, 1e3, 1e12, 1e200])
@pytest.mark.parametrize("start", [-30.0, -1.0, 0.0, 0.5, 20.0])
def test_the_flow_solves_its_equation_to_rounding(M, t, start):
    with mpmath.workdps(50):
        y = mpmath.exp(start) + (M - 1) * mpmath.mpf(start) + mpmath.mpf(t)
        m = mpmath.mpf(flow_margin(t, 1.0, start, M).item())
        residual = (mpmath.exp(m) + (M - 1) * m - y) / (mpmath.exp(m) + M - 1)  # distance to the root
        assert abs(residual) < 4e-15 * max(1, abs(m), abs(start))


@given(st.floats(-700, 1e5), st.floats(0, 1e300))
def test_the_flow_overflows_nowhere_and_never_goes_back(start, t):
    m = flow_margin(torch.tensor([0.0, t], dtype=D), 1.0, start)
    assert abs(m[0].item() - start) <= 1e-14 * max(1, abs(start))
    assert m[1].item() >= m[0].item() - 1e-14 * max(1, abs(start))


def test_eq_29_by_the_product_logarithm_where_that_can_be_computed():
    t = np.linspace(0.0, 700.0, 200)
    for start in (-3.0, 0.0, 1.0):
        y = t + math.exp(start) + start
        by_lambert = [float(v - mpmath.lambertw(mpmath.exp(v))) for v in y]
        assert np.abs(flow_margin(torch.tensor(t), 1.0, start).numpy() - by_lambert).max() < 1e-12


def test_the_flow_is_that_of_the_dynamics():
    p = torch.tensor([0.7, 0.2, 0.1], dtype=D)
    E = torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=D))
    U = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.4, 1.2]], dtype=D)
    problem = AssociationProblem(E, U, torch.tensor([0, 1, 0]), p)
    W0 = torch.randn(3, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    times = torch.logspace(-3, 9, 25, dtype=D)
    run = gradient_flow(problem, W0, times=times)
    c = p * (E**2).sum(-1) * ((U[0] - U[1]) ** 2).sum()
    start = margins(W0, problem).gather(-1, 1 - problem.targets[:, None])[:, 0]
    exact = flow_margin(times[:, None], c, start)
    assert (run.tightest_margin - exact).abs().max() < 1e-8  # the accuracy of the integrator


@given(st.floats(1.0, 1e30))
def test_the_defect_is_what_print_says_and_less(y):
    h, m = defect(y).item(), flow_margin(y - 1).item()
    assert abs(math.log(y) - h - m) < 1e-14 * max(1, m)
    assert 0 <= h <= math.log(1 + math.exp(-1)) + 1e-16
    rounding = 4e-16  # y = 1 + small: log y itself
    assert h <= DEFECT_CONSTANT * math.log(y) / y + rounding
    assert h >= 0.5 * math.log(y) / y - rounding


# ---- descent ----


@settings(max_examples=25)
@given(small_and_large, steps_taken, st.integers(2, 50), st.floats(-5, 5))
def test_descent_is_the_loop(a, steps, M, start):
    path = walk(a, steps, start, M)
    found = descent_margin(a, torch.arange(steps + 1), start, M)
    assert np.abs(found.numpy() - path).max() < 1e-11 * max(1, abs(path[-1]))


@pytest.mark.parametrize("M", [2, 3, 20])
@pytest.mark.parametrize("a", [0.3, 1.0, 2.0, 2.6, 7.0, 60.0])
def test_far_steps_are_the_loop_too(a, M):
    steps = 60_000
    slow = walk(a, steps, 0.0, M)[-1]
    roundings = steps * slow * 2.0**-53  # of the slow way, one each step
    assert abs(descent_margin(a, steps, 0.0, M).item() - slow) < 1e-12 + roundings


def test_descent_is_that_of_the_dynamics():
    p = torch.tensor([0.6, 0.3, 0.1], dtype=D)
    problem = AssociationProblem.orthonormal(3, 4, p=p)
    run = gradient_descent(problem, rate=5.0, steps=300, progress=False)
    exact = descent_margin(5.0 * 4 * p, run.times.long(), 0.0, 4)
    assert (run.tightest_margin - exact).abs().max() < 1e-11


def test_the_expansion_is_the_one_that_the_recursion_asks_for():
    """Orders a^2 to a^7 of G(m + a f) - G(m) = a, with f = 1/(exp(m) + K), G = G_0 + a G_1 + .., G_n = f^(n-1) P(q)."""
    q = sympy.Symbol("q")

    def slope(power, f):  # of f^power times a polynomial, over f^power: f' = -q f, q' = q (1 - q)
        return sympy.expand(-power * q * f + q * (1 - q) * sympy.diff(f, q))

    # G_n' = f^(n-1) times this; G_0 = exp(m) + K m, G_1 = -log(exp(m) + K) / 2
    first = {0: sympy.Integer(1), 1: -q / 2}
    for n, row in enumerate(TAIL, 2):
        first[n] = slope(n - 1, sum(sympy.Rational(b).limit_denominator(10**6) * q**k for k, b in enumerate(row)))
    for n in range(1, 2 + len(TAIL)):
        total = 0
        for j in range(1, n + 2):
            term = first[n + 1 - j]
            for _ in range(j - 1):
                term = slope(n - j, term)
            total += term / sympy.factorial(j)
        assert sympy.expand(total) == 0, n


@pytest.mark.parametrize("a", [1e-9, 1e-5, 1e-3, 0.05])
def test_small_rates_approach_the_flow_with_an_error_of_the_next_order(a):
    steps = round(1e4 / a)
    flow = flow_margin(a * steps).item()
    # modified equation: exp(m) + m - (a/2) log(exp(m) + 1) runs like the clock
    missing = a / 2 * (math.log(math.exp(flow) + 1) - math.log(2)) / (math.exp(flow) + 1)
    assert abs(descent_margin(a, steps).item() - flow - missing) < 1e-14 + a * missing
    # C_a = 1 - (a/2) log 2 + a (step P(q)), step = a/2, q = 1/2
    assert abs(descent_constant(a).item() - (1 - a / 2 * math.log(2) + a**2 * 5 / 96)) < 1e-15 + a**3


@pytest.mark.parametrize(
    ("a", "steps", "start", "margin"),
    [
        (1500.0, [1, 2, 10**12], 0.0, [750.0] * 3),
        (1e6, [1, 2, 10**12], 0.0, [5e5] * 3),
        (1.0, [0, 10], 800.0, [800.0] * 2),
        (1.0, [10], 1e6, [1e6]),
        (1e300, [10**12], 700.0, [math.log(1e300) + math.log(1e12)]),  # exp(m) = exp(700) + a t (1 + o(1))
    ],
)
def test_rates_and_margins_beyond_the_exponential_range(a, steps, start, margin):
    found = descent_margin(a, torch.tensor(steps), start)
    assert (found / torch.tensor(margin, dtype=D) - 1).abs().max() < 1e-5
    if start == 0.0:
        low, high = descent_bounds(a, torch.tensor(steps, dtype=D))
        assert ((low <= found) & (found <= high)).all()


@pytest.mark.parametrize(("a", "t"), [(720.0, 5.0), (1e4, 7.0), (30.0, 100.0), (1e-7, 1e9), (2.6, 40.0), (6.0, 1e3)])
def test_the_upper_bound_solves_its_equation(a, t):
    assert bool((descent_bounds(a, 0.0)[1] >= 0).all())
    with mpmath.workdps(60):
        s, m = mpmath.mpf(a) / 2, mpmath.mpf(descent_bounds(a, t)[1].item())
        q = 2 * (mpmath.exp(s) - 1 - s) / s
        residual = mpmath.log((1 + a * mpmath.mpf(t) + q * m) / (mpmath.exp(m) + m))
        assert abs(residual) < 1e-13 * max(1, m)


@pytest.mark.parametrize("M", [2, 10, 10**6])
@pytest.mark.parametrize("t", [1e-300, 1e-16, 1e-12, 1e-4])
def test_small_gains_have_a_small_relative_error(M, t):
    # (1 + (M - 1)) u + u^2 / 2 = t up to u^3
    gain = flow_margin(t, 1.0, 0.0, M).item()
    assert abs(gain / (t / M * (1 - t / (2 * M**2))) - 1) < 1e-15 + t**2
    assert flow_margin(0.0, 1.0, 0.0, M).item() == 0.0


@given(small_and_large, steps_taken, st.integers(2, 30))
def test_descent_is_never_behind_the_flow_and_not_far_ahead(a, steps, M):
    m = walk(a, steps, 0.0, M)[-1]
    low, high = (v.item() for v in descent_bounds(a, float(steps), M))
    slack = 1e-13 * max(1, m)
    assert low - slack <= m <= high + slack
    assert abs(low - flow_margin(a * steps, 1.0, 0.0, M).item()) < slack


@pytest.mark.parametrize(
    ("a", "constant"),
    [(0.1, 0.96587), (0.5, 0.84041), (1.0, 0.71145), (2.0, 0.57580), (2.1, 0.57419), (3.0, 0.71942), (4.0, 1.48467)],
)
def test_the_constant_of_descent(a, constant):
    # five digits found by a different program; here also from a long run, o(1) = O(log t / t)
    assert abs(descent_constant(a).item() - constant) < 5.1e-6
    for steps, small in ((2_000, 3e-3), (200_000, 3e-5)):
        m = walk(a, steps)[-1]
        assert abs(math.exp(m) + (1 - a / 2) * m - steps * a - descent_constant(a).item()) < small
    m = walk(a, 2_000)[-1]
    # exp(m) times the roundings of 2000 steps
    assert abs(abel(m, a).item() - 2_000 * a - descent_constant(a).item()) < 1e-8


@given(st.floats(0.01, 6.0), st.integers(1, 300), st.sampled_from([2, 2, 3, 7]))
def test_where_the_printed_bound_holds(a, steps, M):
    """Exactly from the threshold on, never at any time up to 2 (M - 1)."""
    ahead = np.exp(walk(a, steps, 0.0, M)[1:]) - 1 - a * np.arange(1, steps + 1)
    rounding = 1e-11 * (1 + a * steps)
    if a >= log_bound_threshold(M) + 1e-9:
        assert ahead.min() > -rounding
    elif a <= 2 * (M - 1) and a < log_bound_threshold(M):
        assert ahead.max() < rounding
    else:
        assert ahead[0] < rounding


@given(small_and_large, steps_taken)
def test_the_loss_stays_below_its_sharp_bound(a, steps):
    m = np.array(walk(a, steps)[1:])
    assert (a * np.arange(1, steps + 1) * np.log1p(np.exp(-m))).max() <= LOSS_CONSTANT * (1 + 1e-12)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("t", lambda: flow_margin(-1.0)),
        ("c", lambda: flow_margin(1.0, -1.0)),
        ("M", lambda: flow_margin(1.0, M=1)),
        ("start", lambda: flow_margin(1.0, start=math.nan)),
        ("t, c, start", lambda: flow_margin(torch.ones(2), torch.ones(3))),
        ("y", lambda: defect(0.5)),
        ("a", lambda: descent_margin(0.0, 3)),
        ("steps", lambda: descent_margin(1.0, torch.tensor([3, 2]))),
        ("steps", lambda: descent_margin(1.0, -1)),
        ("a", lambda: descent_bounds(-1.0, 2.0)),
        ("M", lambda: log_bound_threshold(1)),
    ],
)
def test_bad_input_is_named(argument, call):
    with refuses(argument):
        call()


def test_a_start_too_far_below_zero_is_named(monkeypatch):
    monkeypatch.setattr(closed_forms, "LONGEST", 100)
    assert descent_margin(1.0, 99, start=-1e6).item() == -1e6 + 99
    with refuses("start"):
        descent_margin(1.0, 10**7, start=-1e6)


def test_what_is_too_large_is_said():
    with pytest.raises(OverflowError, match="c t"):
        flow_margin(1e300, 1e300)
    with pytest.raises(OverflowError, match="clock"):
        clock(1000.0)
