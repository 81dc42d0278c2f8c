"""Orthogonal memories against the integrator, exact invariants, and solvers that know no closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from amem_core import AssociationProblem, margins, zipf_frequencies
from amem_core.closed_forms import flow_margin
from amem_core.dynamics import gradient_descent, gradient_flow
from amem_core.orthogonal import logits_flow, loss_law, one_step_rate, orthogonal_max_margin
from tests.oracles import refuses

D = torch.float64
TIMES = torch.cat([torch.zeros(1, dtype=D), torch.logspace(-6, 12, 37, dtype=D)])
seeds = st.integers(0, 2**31)


def random_logits(seed: int, M: int, size: float) -> torch.Tensor:
    return size * torch.randn(M, dtype=D, generator=torch.Generator().manual_seed(seed))


# ---- the flow of the logits ----


@settings(max_examples=15)
@given(seeds, st.integers(2, 8), st.sampled_from([0.3, 2.0, 5.0]))
def test_the_solved_flow_is_the_integrated_one(seed, M, size):
    start = random_logits(seed, M, size)
    problem = AssociationProblem.orthonormal(1, M)
    W0 = torch.zeros(M, M, dtype=D)
    W0[:, 0] = start
    run = gradient_flow(problem, W0, times=TIMES)
    # the integrator promises 1e-8 for margins; far from the start they pass through steep parts
    assert (run.particles[:, 0] - logits_flow(start, TIMES)).abs().max() < 1e-7


@given(st.integers(2, 40), st.floats(1e-3, 1e3), st.floats(-20, 20))
def test_equal_wrong_logits_follow_the_clock(M, c, lead):
    start = torch.zeros(M, dtype=D)
    start[0] = lead
    w = logits_flow(start, TIMES, c)
    exact = flow_margin(TIMES, M * c, lead, M)
    assert ((w[:, 0] - w[:, 1] - exact).abs() / (1 + exact.abs())).max() < 1e-12


@given(seeds, st.integers(2, 10), st.sampled_from([1.0, 20.0]), st.integers(0, 9))
def test_what_is_conserved_is_conserved_and_time_runs_right(seed, M, size, target):
    target = target % M
    start = random_logits(seed, M, size)
    w = logits_flow(start, TIMES, target=target)
    assert torch.equal(w[0], start)
    assert ((w.sum(-1) - start.sum()).abs() <= 1e-12 * (1 + w.abs().sum(-1))).all()
    wrong = [i for i in range(M) if i != target]
    X = torch.exp(-w[:, wrong])
    change = X - X[0]
    assert ((change - change[:, :1]).abs() <= 1e-11 * X.amax(-1, keepdim=True)).all()
    # the right logit has the speed 1 - p, which falls: between two times its mean lies between those at the ends
    speed = torch.softmax(w, -1)[:, wrong].sum(-1)
    mean = w[:, target].diff() / TIMES.diff()
    rounding = 1e-13 * (1 + w.abs().amax(-1)[1:]) / TIMES.diff()
    assert ((mean <= speed[:-1] + rounding) & (mean >= speed[1:] - rounding)).all()


def test_a_common_shift_changes_nothing_and_batches_run_as_if_alone():
    starts = torch.randn(3, 2, 4, dtype=D, generator=torch.Generator().manual_seed(0))
    w = logits_flow(starts, TIMES, 0.5, target=2)
    assert w.shape == (len(TIMES), 3, 2, 4)
    assert torch.allclose(w[:, 1, 0], logits_flow(starts[1, 0], TIMES, 0.5, target=2), rtol=1e-14, atol=1e-14)
    assert torch.allclose(logits_flow(starts + 500, TIMES, 0.5, target=2), w + 500, rtol=1e-12, atol=0)


@pytest.mark.parametrize("M", [3, 5, 10])
def test_the_spread_of_wrong_logits_falls_with_the_power_one_over_M(M):
    start = random_logits(M, M, 1.0)
    t = torch.logspace(60, 90, 61, dtype=D)
    w = logits_flow(start, t)
    predicted = (torch.exp(-start[2]) - torch.exp(-start[1])) * torch.exp(start.mean()) * (M * t) ** (-1 / M)
    # w_1 - w_2 rounds to 1e-14 |w|
    seen = w[:, 1] - w[:, 2]
    assert ((seen - predicted).abs() < 3e-3 * predicted.abs().max() + 1e-12).all()


@pytest.mark.parametrize("lead", [0.0, -3.0])
def test_two_thousand_classes_follow_the_clock_and_keep_their_invariants(lead):
    M, times = 2000, torch.tensor([1.0, 1e6, 1e12], dtype=D)
    start = torch.zeros(M, dtype=D)
    start[0] = lead
    w = logits_flow(start, times)
    assert (w[:, 0] - w[:, 1] - flow_margin(times, M, lead, M)).abs().max() < 1e-10
    start[1:] = torch.linspace(-2.0, 1.0, M - 1, dtype=D)
    w = logits_flow(start, torch.tensor([1e3, 1e3 + 1e-3], dtype=D))
    X = torch.exp(-w[:, 1:]) - torch.exp(-start[1:])
    assert ((X / X[:, :1] - 1).abs() < 1e-9).all() and (w.sum(-1) - start.sum()).abs().max() < 1e-9
    # the clock of time: the right logit has the speed 1 - p
    speed = 1 - torch.softmax(w[0], -1)[0]
    assert abs((w[1, 0] - w[0, 0]) / 1e-3 / speed - 1) < 1e-5


@pytest.mark.parametrize("lead", [-20_000.0, -800.0, -708.0, 800.0, 1e6])
@pytest.mark.parametrize("M", [2, 5])
def test_leads_beyond_the_exponential_range(lead, M):
    start, times = torch.zeros(M, dtype=D), torch.tensor([0.0, 1e-3, 1.0, 1e3, 1e5], dtype=D)
    start[1] = lead
    w = logits_flow(start, times, target=1)
    exact = flow_margin(times, M, lead, M)
    assert ((w[:, 1] - w[:, 0] - exact).abs() <= 1e-12 * (1 + exact.abs() + abs(lead))).all()


# ---- one giant step ----


@given(seeds, st.integers(2, 12), st.sampled_from([0.1, 1.0, 10.0]))
def test_one_step_recalls_exactly_above_the_rate(seed, M, size):
    start = random_logits(seed, M, size)
    rate = one_step_rate(start).item()
    deficit = max(0.0, (start[1:].max() - start[0]).item())
    assert deficit / 2 - 1e-12 <= rate <= deficit + 1e-12
    problem = AssociationProblem.orthonormal(1, M)
    W0 = torch.zeros(M, M, dtype=D)
    W0[:, 0] = start

    def recalled(a):
        return bool(gradient_descent(problem, W0, rate=a, steps=1, progress=False).tightest_margin[-1, 0] > 0)

    assert recalled(rate * (1 + 1e-9) + 1e-12)
    assert rate == 0 or not recalled(rate * (1 - 1e-9))


# ---- the matrix of least norm ----


@pytest.mark.parametrize("M", [2, 3, 6])
def test_the_max_margin_matrix_solves_the_dual_problem(M):
    generator = torch.Generator().manual_seed(M)
    Q = torch.linalg.qr(torch.randn(8, 8, dtype=D, generator=generator)).Q
    E = Q[:3] * torch.tensor([0.5, 1.0, 3.0], dtype=D)[:, None]
    U = 1.7 * torch.linalg.qr(torch.randn(8, 8, dtype=D, generator=generator)).Q[:M]
    U = torch.randn(2, 8, dtype=D, generator=generator) if M == 2 else U
    problem = AssociationProblem(E, U, torch.arange(3) % M, zipf_frequencies(3))
    # minimise |sum lambda D|^2 / 2 - sum lambda over lambda >= 0 by non-negative least squares
    rows = [
        torch.outer(U[y] - U[i], E[x]).flatten() for x in range(3) for y in [x % M] for i in range(M) if i != y
    ]  # fmt: skip
    A = torch.stack(rows).numpy()
    L = np.linalg.cholesky(A @ A.T)
    multipliers, _ = nnls(L.T, np.linalg.solve(L, np.ones(len(A))))
    W = orthogonal_max_margin(problem)
    assert np.abs(A.T @ multipliers - W.flatten().numpy()).max() < 1e-12
    assert (margins(W, problem).scatter(-1, problem.targets[:, None], 1.0) - 1).abs().max() < 1e-12
    assert abs(loss_law(problem).item() - float((W**2).sum())) < 1e-12


@pytest.mark.parametrize("M", [2, 5])
def test_the_loss_follows_its_law(M):
    problem = AssociationProblem.orthonormal(4, M, p=zipf_frequencies(4))
    run = gradient_flow(problem, times=torch.tensor([1e9], dtype=D))
    law = loss_law(problem).item()
    assert abs(law - 4 * (1 - 1 / M)) < 1e-14
    assert abs(1e9 * run.loss[-1].item() / law - 1) < 1e-6


# ---- what is refused ----


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("start", lambda: logits_flow(torch.zeros(1, dtype=D), TIMES)),
        ("start", lambda: logits_flow(torch.full((2,), math.nan, dtype=D), TIMES)),
        ("times", lambda: logits_flow(torch.zeros(2, dtype=D), -TIMES)),
        ("target", lambda: logits_flow(torch.zeros(2, dtype=D), TIMES, target=2)),
        ("c", lambda: logits_flow(torch.zeros(2, dtype=D), TIMES, 0.0)),
        ("start", lambda: one_step_rate(torch.zeros(1, dtype=D))),
        ("target", lambda: one_step_rate(torch.zeros(2, dtype=D), -1)),
        ("problem.E", lambda: orthogonal_max_margin(AssociationProblem.two_tokens(0.5, 0.5))),
        ("problem.U", lambda: orthogonal_max_margin(AssociationProblem.gaussian(1, 3, 4, seed=0))),
        ("problem.U", lambda: loss_law(unequal())),
    ],
)
def test_bad_input_is_named(argument, call):
    with refuses(argument):
        call()


def unequal() -> AssociationProblem:
    eye = torch.eye(3, dtype=D)
    return AssociationProblem(eye[:1], eye * torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0]), torch.ones(1, dtype=D))
