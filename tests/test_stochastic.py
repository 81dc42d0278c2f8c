"""Stochastic descent and flow: first two moments against theory, and what the noise may reach.

Each test draws n independent copies with a fixed seed, so it passes or fails for ever. A mean of
n draws is compared within 5 standard errors, which chance exceeds once in two million; a test
compares at most some hundred numbers.
"""

import pytest
import torch
from torch import Tensor

from amem_core import AssociationProblem, gradient
from amem_core.dynamics import gradient_descent, stochastic_gradient_descent, stochastic_gradient_flow
from tests.oracles import autograd, refuses

D = torch.float64
N_COPIES = 20_000
PROBLEM = AssociationProblem.gaussian(4, 3, 3, seed=2, p=torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=D))
START = torch.randn(3, 3, dtype=D, generator=torch.Generator().manual_seed(3))
COPIES = START.expand(N_COPIES, 3, 3)


def token_gradients(problem: AssociationProblem, W: Tensor) -> Tensor:
    """Gradient of the loss of each token alone, by autograd, shape (N, d*d)."""
    alone = torch.eye(problem.N, dtype=D)
    parts = [AssociationProblem(problem.E, problem.U, problem.targets, p) for p in alone]
    return torch.stack([autograd(W, part).flatten() for part in parts])


def moments_of_one_token(problem: AssociationProblem, W: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the gradient of a token drawn from p."""
    g = token_gradients(problem, W)
    mean = problem.p @ g
    return mean, (g - mean).mT @ ((g - mean) * problem.p[:, None])


def assert_moments(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Mean and covariance of draws (n, k) within 5 standard errors of the given ones."""
    n = len(draws)
    error = draws.mean(0) - mean
    assert bool((error.abs() <= 5 * (covariance.diagonal() / n).sqrt() + 1e-15).all())
    centred = draws - mean
    products = centred[:, :, None] * centred[:, None, :]
    error = products.mean(0) - covariance
    assert bool((error.abs() <= 5 * products.std(0) / n**0.5 + 1e-15).all())


@pytest.mark.parametrize("space", ["particles", "embeddings"])
@pytest.mark.parametrize(("batch_size", "rate"), [(1, 1.0), (7, 0.3)])
def test_a_step_of_stochastic_descent_has_the_moments_of_a_mini_batch(space, batch_size, rate):
    run = stochastic_gradient_descent(PROBLEM, COPIES, rate=rate, steps=1, batch_size=batch_size, seed=0, space=space)
    moves = (run.W[1] - START).reshape(N_COPIES, -1)
    mean, covariance = moments_of_one_token(PROBLEM, START)
    assert_moments(moves, -rate * mean, rate**2 / batch_size * covariance)


def test_the_sum_over_the_batch_is_batch_size_times_the_mean():
    # as printed under Eq. (7): its mean is |B| times the gradient
    options = {"steps": 1, "batch_size": 8, "seed": 5, "rate": 0.25}
    mean = stochastic_gradient_descent(PROBLEM, COPIES, reduction="mean", **options)
    total = stochastic_gradient_descent(PROBLEM, COPIES, reduction="sum", **options)
    moved = total.W[1] - START
    assert float((moved - 8 * (mean.W[1] - START)).abs().max()) < 1e-13
    error = moved.mean(0) + 0.25 * 8 * gradient(START, PROBLEM)
    assert bool((error.abs() <= 5 * moved.std(0) / N_COPIES**0.5).all())


def test_a_large_batch_is_gradient_descent():
    run = stochastic_gradient_descent(PROBLEM, START, rate=0.5, steps=5, batch_size=10**6, seed=0)
    exact = gradient_descent(PROBLEM, START, rate=0.5, steps=5)
    # five steps, each with noise 0.5 |g| / 1000
    assert float((run.W - exact.W).abs().max()) < 5 * 5 * 0.5e-3 * float(token_gradients(PROBLEM, START).abs().max())


def test_batches_are_drawn_with_replacement_and_never_hold_what_never_occurs():
    run = stochastic_gradient_descent(PROBLEM, 0 * COPIES, rate=1.0, steps=1, batch_size=2, seed=0, space="particles")
    written = run.C[1].abs().sum(-1) > 0
    assert not written[:, 3].any()
    assert set(written.sum(-1).tolist()) == {1, 2}  # one token twice, or two tokens
    once = written.sum(-1) == 1
    p_same = float((PROBLEM.p**2).sum())
    assert abs(float(once.double().mean()) - p_same) < 5 * (p_same * (1 - p_same) / N_COPIES) ** 0.5


def test_members_and_steps_draw_independently():
    pair = AssociationProblem(PROBLEM.E.expand(2, 4, 3), PROBLEM.U, PROBLEM.targets, PROBLEM.p)
    W0 = START.expand(N_COPIES, 2, 3, 3)
    run = stochastic_gradient_descent(pair, W0, rate=1e-9, steps=2, batch_size=1, seed=1, space="particles")
    first, second = run.C[1][..., 0].sum(-1), (run.C[2] - run.C[1])[..., 0].sum(-1)
    for a, b in [(first[:, 0], first[:, 1]), (first[:, 0], second[:, 0]), (first[1:, 0], first[:-1, 0])]:
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / len(a) ** 0.5


def test_a_generator_goes_on_where_it_was():
    options = {"rate": 0.5, "batch_size": 2}
    whole = stochastic_gradient_descent(PROBLEM, START, steps=6, seed=9, space="embeddings", **options)
    generator = torch.Generator().manual_seed(9)
    half = stochastic_gradient_descent(PROBLEM, START, steps=3, seed=generator, space="embeddings", **options)
    rest = stochastic_gradient_descent(PROBLEM, half.W[-1], steps=3, seed=generator, space="embeddings", **options)
    assert torch.equal(rest.W[-1], whole.W[-1])
    other = stochastic_gradient_descent(PROBLEM, START, steps=6, seed=10, space="embeddings", **options)
    assert not torch.equal(other.W[-1], whole.W[-1])


def test_scheduled_rates_reach_the_stochastic_step():
    run = stochastic_gradient_descent(PROBLEM, START, rate=lambda t: float(t == 1), steps=3, batch_size=1, seed=0)
    assert torch.equal(run.W[0], run.W[1])
    assert not torch.equal(run.W[1], run.W[2])
    assert torch.equal(run.W[2], run.W[3])


def test_one_step_of_the_flow_has_the_moments_of_its_mini_batch_noise():
    sigma, dt = 0.7, 0.09
    run = stochastic_gradient_flow(PROBLEM, COPIES, duration=dt, steps=1, sigma=sigma, seed=0)
    mean, covariance = moments_of_one_token(PROBLEM, START)
    assert_moments((run.W[1] - START).reshape(N_COPIES, -1), -dt * mean, sigma**2 * dt * covariance)


def test_one_step_of_the_flow_has_the_moments_of_its_isotropic_noise():
    sigma, dt = 0.7, 0.09
    run = stochastic_gradient_flow(PROBLEM, COPIES, duration=dt, steps=1, sigma=sigma, noise="isotropic", seed=0)
    mean, _ = moments_of_one_token(PROBLEM, START)
    assert_moments((run.W[1] - START).reshape(N_COPIES, -1), -dt * mean, sigma**2 * dt * torch.eye(9, dtype=D))


def outside_the_span(problem: AssociationProblem, W: Tensor) -> Tensor:
    """The part of W orthogonal to every (u_j - u_k) e_i^T, flattened."""
    gaps = problem.U[1:] - problem.U[0]
    Q_U, Q_E = torch.linalg.qr(gaps.mT).Q, torch.linalg.qr(problem.E.mT).Q
    inside = Q_U @ Q_U.mT @ W @ Q_E @ Q_E.mT
    return (W - inside).flatten(-2)


def test_isotropic_noise_leaves_the_span_of_the_gradients_and_mini_batch_noise_does_not():
    problem = AssociationProblem.gaussian(2, 2, 4, seed=0)
    W0 = torch.zeros(2000, 4, 4, dtype=D)
    options = {"duration": 2.0, "steps": 10, "sigma": 0.3, "seed": 1}
    inside = outside_the_span(problem, stochastic_gradient_flow(problem, W0, **options).W)
    assert float(inside.abs().max()) < 1e-13
    run = stochastic_gradient_flow(problem, W0, noise="isotropic", **options)
    squares = outside_the_span(problem, run.W).square().sum(-1)
    # no force outside: a Brownian motion in 16 - 2 * 1 dimensions, E |.|^2 = sigma^2 t dim
    dim = 16 - 2
    expected = 0.3**2 * run.times * dim
    error = (squares.mean(1) - expected).abs()
    assert bool((error <= 5 * expected * (2 / (dim * 2000)) ** 0.5).all())


@pytest.mark.parametrize("noise", ["minibatch", "isotropic"])
def test_without_noise_the_scheme_is_euler(noise):
    run = stochastic_gradient_flow(PROBLEM, START, duration=3.0, steps=12, noise=noise, sigma=0.0, seed=0)
    exact = gradient_descent(PROBLEM, START, rate=0.25, steps=12)
    assert float((run.W - exact.W).abs().max()) < 1e-13
    assert run.times.tolist() == [0.25 * k for k in range(13)]


def test_stochastic_descent_and_its_diffusion_spread_alike():
    # sigma^2 = rate / batch: the variance of the loss-relevant coordinate agrees to first order in the rate
    rate, steps, batch_size = 0.02, 50, 1
    W0 = START.expand(4000, 3, 3)
    descent = stochastic_gradient_descent(
        PROBLEM, W0, rate=rate, steps=steps, batch_size=batch_size, seed=0, record_every=steps
    )
    flow = stochastic_gradient_flow(
        PROBLEM, W0, duration=rate * steps, steps=steps, sigma=(rate / batch_size) ** 0.5, seed=1, record_every=steps
    )
    a, b = (run.W[-1].reshape(4000, -1) for run in (descent, flow))
    assert bool(((a.mean(0) - b.mean(0)).abs() <= 5 * ((a.var(0) + b.var(0)) / 4000).sqrt()).all())
    # a sample variance has relative error sqrt(2/n) for a Gaussian, at most twice that here; the rest is O(rate)
    assert bool(((a.var(0) / b.var(0) - 1).abs() < 5 * 2 * (2 * 2 / 4000) ** 0.5 + 5 * rate).all())


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("batch_size", {"batch_size": 0}),
        ("batch_size", {"batch_size": -3}),
        ("reduction", {"reduction": "median"}),
        ("seed", {"seed": -1}),
        ("rate", {"rate": -0.1}),
        ("rate", {"rate": torch.inf}),
        ("steps", {"steps": 0}),
        ("record_every", {"record_every": 0}),
        ("space", {"space": "phase"}),
    ],
)
def test_malformed_arguments_of_stochastic_descent_are_refused(argument, change):
    with refuses(argument):
        stochastic_gradient_descent(PROBLEM, **{"rate": 1.0, "steps": 1, "batch_size": 1, "seed": 0, **change})


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("duration", {"duration": 0.0}),
        ("duration", {"duration": -1.0}),
        ("duration", {"duration": torch.nan}),
        ("duration", {"duration": torch.inf}),
        ("sigma", {"sigma": -0.1}),
        ("sigma", {"sigma": torch.nan}),
        ("noise", {"noise": "white"}),
        ("steps", {"steps": 0}),
        ("record_every", {"record_every": 0}),
        ("seed", {"seed": -1}),
    ],
)
def test_malformed_arguments_of_the_stochastic_flow_are_refused(argument, change):
    with refuses(argument):
        stochastic_gradient_flow(PROBLEM, **{"duration": 1.0, "steps": 1, "sigma": 1.0, "seed": 0, **change})


@pytest.mark.parametrize("noise", ["minibatch", "isotropic"])
def test_noise_that_leaves_the_range_is_an_error(noise):
    with pytest.raises(OverflowError, match="range"):
        stochastic_gradient_flow(PROBLEM, duration=1e300, steps=9, noise=noise, sigma=1e300, seed=0)
