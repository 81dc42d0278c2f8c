"""Curvature of W_O2 alone, paths of the gradient of W_K1, and readings of curves, against plain computations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from amem_core.induction import (
    TRAINED,
    BigramTask,
    Features,
    SimplifiedTransformer,
    Weights,
    features_hessian_product,
    features_sharpness,
    first_time,
    fixed_features,
    gradient_paths,
    loss_and_gradients,
    loss_plain,
    orthonormal_weights,
    path_descent,
    spikes,
)
from amem_core.rates import fit_rate
from tests.oracles import normal, refuses

TASK = BigramTask.shakespeare(length=40)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_features(P: int = 30, d: int = 5, N: int = 7, seed: int = 0) -> Features:
    targets = torch.randint(N, (P,), generator=generator(seed))
    return Features(normal(P, d, seed=seed), normal(P, N, seed=seed + 1), targets, normal(N, d, seed=seed + 2))


def plain_loss(W: Tensor, features: Features) -> Tensor:
    """By torch's own functions."""
    logits = features.base + features.X @ W.T @ features.W_U.T
    return torch.nn.functional.cross_entropy(logits, features.targets)


# ---- curvature ----


@given(st.integers(1, 40), st.integers(1, 6), st.integers(2, 9), st.integers(0, 99))
def test_hessian_product_is_autograds(P, d, N, seed):
    features, W, V = some_features(P, d, N, seed), normal(d, d, seed=seed + 3), normal(d, d, seed=seed + 4)
    _, wanted = torch.autograd.functional.hvp(lambda X: plain_loss(X, features), W, V)
    found = features_hessian_product(W, features, V)
    assert (found - wanted).abs().max() <= 1e-12 * (1 + wanted.abs().max())  # a few roundings of sums of 40 terms


def test_hessian_product_works_in_blocks():
    features, W, V = some_features(P=5000), normal(5, 5, seed=3), normal(5, 5, seed=4)
    _, wanted = torch.autograd.functional.hvp(lambda X: plain_loss(X, features), W, V)
    assert torch.allclose(features_hessian_product(W, features, V), wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_sharpness_is_the_largest_eigenvalue(d):
    features, W = some_features(d=d), normal(d, d, seed=3)
    dense = torch.autograd.functional.hessian(lambda X: plain_loss(X, features), W).reshape(d * d, d * d)
    wanted = torch.linalg.eigvalsh(dense)
    value, direction = features_sharpness(W, features, tolerance=1e-10)
    assert wanted[0] > -1e-14  # convex
    assert value == pytest.approx(float(wanted[-1]), rel=1e-9)
    turned = features_hessian_product(W, features, direction)
    assert float(direction.norm()) == pytest.approx(1, rel=1e-9)
    assert (turned - value * direction).abs().max() < 1e-7 * value


def test_sharpness_tells_which_rates_contract():
    """Perturbed along the sharpest direction, a small error grows in one step just above 2/sharpness only."""
    features, W = some_features(), normal(5, 5, seed=3)
    value, direction = features_sharpness(W, features, tolerance=1e-12)
    for ratio in (0.98, 1.02):
        moved = direction - ratio * 2 / value * features_hessian_product(W, features, direction)
        assert (float(moved.norm()) > 1) == (ratio > 1)


def test_curvature_of_nothing_is_zero():
    features = some_features()
    empty = Features(features.X[:0], features.base[:0], features.targets[:0], features.W_U)
    assert not features_hessian_product(normal(5, 5), empty, normal(5, 5)).any()
    assert features_sharpness(normal(5, 5), empty)[0] == 0
    still = Features(0 * features.X, features.base, features.targets, features.W_U)
    assert features_sharpness(normal(5, 5), still)[0] == 0


def test_single_precision_agrees():
    batch = TASK.sample(20, generator(1))
    exact = Weights.draw(63, 40, 16, seed=0, dtype=torch.float64)
    rough = exact.to(dtype=torch.float32)
    value = features_sharpness(exact.W_O2, fixed_features(exact, batch))[0]
    assert features_sharpness(rough.W_O2, fixed_features(rough, batch))[0] == pytest.approx(value, rel=3e-3)


def test_curvature_refuses():
    features = some_features()
    with refuses("W_O2", r"\(4, 4\)", r"d = 5"):
        features_hessian_product(normal(4, 4), features, normal(4, 4))
    with refuses("V"):
        features_hessian_product(normal(5, 5), features, normal(5, 5).float())
    with refuses("W_O2"):
        features_sharpness(normal(5, 5).float(), features)
    with refuses("tolerance", "0"):
        features_sharpness(normal(5, 5), features, tolerance=0.0)


# ---- paths ----


def test_paths_add_up_to_the_gradient():
    batch = TASK.sample(12, generator(2))
    weights = Weights.draw(63, 40, 12, seed=1, dtype=torch.float64)
    paths = gradient_paths(weights, batch)
    wanted = loss_and_gradients(weights, batch, trained=("W_K1",))[1]["W_K1"]
    assert (sum(paths.values()) - wanted).abs().max() < 1e-13 * (1 + wanted.abs().max())
    assert all(path.norm() > 1e-3 * wanted.norm() for path in paths.values())


def test_paths_need_what_stands_behind_them():
    batch = TASK.sample(12, generator(2))
    weights = Weights.draw(63, 40, 12, seed=1, dtype=torch.float64)
    alive = {
        ("W_O2",): {"residual"},
        ("W_K2",): {"residual", "values"},
        ("W_O2", "W_K2"): {"residual"},
        (): {"residual", "values", "keys", "queries"},
    }
    for zero, wanted in alive.items():
        without = weights.replace(**{name: torch.zeros_like(weights.W_O2) for name in zero})
        assert {name for name, path in gradient_paths(without, batch).items() if path.any()} == wanted


def test_descent_by_paths_is_torchs_own_descent():
    batch, start = TASK.sample(12, generator(2)), Weights.draw(63, 40, 12, seed=1, dtype=torch.float64)
    model = SimplifiedTransformer(start)
    optimiser = torch.optim.SGD([getattr(model, name) for name in TRAINED], lr=0.5)
    for weights, parts in path_descent(start, batch, 0.5, 3):
        optimiser.zero_grad()
        loss_plain(model, batch).backward()
        optimiser.step()
        for name in TRAINED:  # roundings of three steps, of entries below one
            assert (getattr(weights, name) - getattr(model, name)).abs().max() < 1e-13
        assert (start.W_K1 + sum(parts.values()) - model.W_K1).abs().max() < 1e-13


def test_paths_refuse():
    small, batch = Weights.draw(63, 8, 4, seed=0), TASK.sample(2, generator(0))
    with refuses("tokens"):
        gradient_paths(small, batch)
    with refuses("rate", "0"):
        path_descent(small, batch, 0.0, 1)
    with refuses("steps", "0"):
        path_descent(small, batch, 1.0, 0)


@pytest.mark.parametrize("orthonormal", [False, True])
def test_orders_of_growth_from_zero(orthonormal):
    """After four steps from zero: W_O2 ~ eta, W_K2 ~ eta^2, parts of W_K1 ~ eta, eta^2, eta^4, eta^4."""
    batch = BigramTask.shakespeare(length=24).sample(12, generator(1))
    random = Weights.draw(63, 24, 16, seed=0, zero=TRAINED, dtype=torch.float64)
    start = orthonormal_weights(63, 24) if orthonormal else random
    rates = torch.logspace(-3, -1, 6, dtype=torch.float64) * (1.0 if orthonormal else 0.1)
    sizes = {name: [] for name in ("W_O2", "W_K2", "residual", "values", "keys", "queries")}
    for rate in rates.tolist():
        weights, parts = path_descent(start, batch, rate, 4)[-1]
        for name, values in sizes.items():
            values.append(float((parts[name] if name in parts else getattr(weights, name)).norm()))
    wanted = {"W_O2": 1, "W_K2": 2, "residual": 1, "values": 2, "keys": 4, "queries": 4}
    for name, order in wanted.items():
        if orthonormal and name == "residual":  # no unembedding meets what layer 1 adds
            assert not any(sizes[name])
            continue
        fitted = fit_rate(rates, torch.tensor(sizes[name], dtype=torch.float64))
        assert abs(fitted.exponent - order) < 0.01  # the next order is larger by one, at rates up to 0.01 or 0.1


# ---- readings ----


@given(
    height=st.sampled_from([0.3, 1.0, 2.5]),
    bumps=st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.9, 1.1, 1.5, 8.0]), st.booleans()), max_size=8),
)
def test_spikes_are_the_planted_bumps_that_are_high_enough(height, bumps):
    """On a falling line: single peaks, and peaks that dip to .7 of their height and rise again, which are one."""
    rise = [0.0]
    for size, double in bumps:
        rise += [size * height, 0.7 * size * height, size * height, 0.0] if double else [size * height, 0.0]
    curve = np.array(rise) - 1e-6 * np.arange(len(rise))
    assert spikes(curve[None], height).tolist() == [sum(size > 1 for size, _ in bumps)]


def test_first_time_is_where_the_curve_crosses():
    steps, t = np.array([0, 2, 5, 9, 20]), np.linspace(0, 20, 20_001)
    values = np.array([[0.1, 0.0, 0.7, 0.6, 0.9], [0.0, 0.2, 0.3, 0.3, 0.4], [0.5, 0.1, 0.2, 0.3, 0.4]])
    found = first_time(steps, values, np.array([0.65, 0.35, 0.5]))
    for when, curve, level in zip(found, values, (0.65, 0.35, 0.5), strict=True):
        assert when == pytest.approx(t[(np.interp(t, steps, curve) >= level - 1e-9).argmax()], abs=2e-3)
    assert np.isnan(first_time(steps, values, 2.0)).all()


def test_readings_refuse():
    with refuses("loss"):
        spikes(np.array([1.0, 2.0]))
    with refuses("height", "0"):
        spikes(np.ones((1, 3)), 0.0)
    with refuses("steps"):
        first_time(np.array([0, 0, 1]), np.ones((1, 3)), 0.5)
    with refuses("values"):
        first_time(np.arange(3), np.array([[0.0, np.nan, 1.0]]), 0.5)
