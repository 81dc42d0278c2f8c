"""Outer-product memories: predictions against simulation, and what is refused."""

import pytest
import torch

from amem_core import AssociationProblem, scores, tightest_margin, zipf_frequencies
from amem_core.dynamics import gradient_descent
from amem_core.storage import (
    outer_products,
    predicted_density,
    predicted_recall,
    predicted_weighted_recall,
    score_variance,
    weighted_score_deviations,
)
from tests.oracles import refuses

DRAWS = 400


def draws(d: int, targets: torch.Tensor, M: int) -> AssociationProblem:
    """Independent draws of spherical embeddings for one map, as one batch."""
    N = len(targets)
    return AssociationProblem.stack(
        [AssociationProblem.spherical(N, M, d, seed=s, targets=targets) for s in range(DRAWS)]
    )


def test_the_memory_is_the_sum_of_its_outer_products():
    problem = AssociationProblem.gaussian(5, 3, 4, seed=0)
    by_hand = sum(torch.outer(problem.U[y], e) for e, y in zip(problem.E, problem.targets, strict=True))
    assert torch.allclose(outer_products(problem), by_hand, atol=1e-14)
    both = AssociationProblem.stack([problem, AssociationProblem.gaussian(5, 3, 4, seed=1)])
    assert torch.allclose(outer_products(both)[0], by_hand, atol=1e-14)


def test_variances_are_those_of_simulated_scores():
    targets, d = torch.tensor([0, 0, 0, 1, 2, 2]), 7
    problem = draws(d, targets, 4)  # class 3 has no token
    w = scores(outer_products(problem), problem)
    right, wrong = score_variance(torch.tensor([3.0, 1.0, 2.0, 0.0]), 6, d, 1.0)
    for x in range(6):
        for j in range(4):
            expected = right[j] if j == targets[x] else wrong[j]
            # the standard error of a variance is near sqrt(2/n) of it, more with heavy tails: five of them, doubled
            assert w[:, x, j].var().item() == pytest.approx(expected.item(), rel=10 * (2 / DRAWS) ** 0.5, abs=1e-12)


def test_a_memory_alone_on_the_sphere_is_recalled_with_certainty():
    assert predicted_recall(torch.tensor([0]), 2, 1000).item() == pytest.approx(1.0, abs=1e-9)


def test_prediction_follows_simulation_and_errs_on_the_safe_side():
    targets = torch.arange(40)
    for d in (16, 32, 64):
        problem = draws(d, targets, 40)
        seen = (tightest_margin(outer_products(problem), problem) > 0).double().mean().item()
        assert -0.03 < seen - predicted_recall(targets, 40, d).mean().item() < 0.1


def test_a_density_has_mass_one_and_the_right_mean():
    grid = torch.linspace(-6, 7, 2601, dtype=torch.float64)
    for density, mean in zip(predicted_density(torch.arange(63) % 9, 9, 20, grid), (1.0, 0.0), strict=True):
        assert (density.sum() * 0.005).item() == pytest.approx(1, abs=1e-6)
        assert ((density * grid).sum() * 0.005).item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((torch.tensor([0, 2]), 2, 4), "targets"), ((torch.tensor([0]), 1, 4), "M"), ((torch.tensor([0]), 2, 0), "d")],
)
def test_bad_input_is_refused(arguments, name):
    for function in (predicted_recall, lambda *a: predicted_density(*a, torch.zeros(3, dtype=torch.float64))):
        with pytest.raises(ValueError, match=rf"^{name}: found .*allowed: "):
            function(*arguments)


# Weighted


def test_weighted_deviations_are_those_of_simulated_scores():
    q, d = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64), 7
    problem = draws(d, torch.arange(4), 4)
    w = scores((problem.U * q[:, None]).mT @ problem.E, problem)
    right, wrong = weighted_score_deviations(q, torch.arange(4), d)
    for x in range(4):
        for j in range(4):
            expected = right[x, 0] if j == x else wrong[x, j]
            # as above, halved for a deviation
            assert w[:, x, j].std().item() == pytest.approx(expected.item(), rel=5 * (2 / DRAWS) ** 0.5, abs=1e-12)


def test_equal_weights_are_the_unweighted_memory():
    tokens, N, d = torch.tensor([3, 0]), 30, 20
    right, wrong = weighted_score_deviations(torch.full((N,), 1.0, dtype=torch.float64), tokens, d)
    expected = score_variance(torch.tensor([1.0, 1.0]).double(), N, d, 1.0)
    assert torch.allclose(right[:, 0] ** 2, expected[0], rtol=1e-12)
    assert torch.allclose(wrong[:, 1] ** 2, expected[1], rtol=1e-12)
    # of another class nothing but its own word is written: the same formula, and the same quadrature with other nodes
    found = predicted_weighted_recall(torch.full((N,), 5.0, dtype=torch.float64), tokens, d)
    assert torch.allclose(found, predicted_recall(torch.arange(N), N, d)[tokens], rtol=1e-6)


def test_the_first_step_of_descent_recalls_what_its_weights_predict():
    N, d, p = 60, 128, zipf_frequencies(60)
    batch = AssociationProblem.stack([AssociationProblem.spherical(N, N, d, seed=s, p=p) for s in range(60)])
    first = gradient_descent(batch, rate=1.0, steps=1, progress=False).tightest_margin[1] > 0
    expected = predicted_weighted_recall(p, torch.arange(N), d)
    assert 0.3 < expected.mean() < 0.9
    # normal scores are an approximation, here to some percent
    assert abs(float(first.double().mean() / expected.mean()) - 1) < 0.05


def test_bad_weights_and_tokens_are_refused():
    q, tokens = torch.ones(3, dtype=torch.float64), torch.arange(3)
    for function in (weighted_score_deviations, predicted_weighted_recall):
        for wrong in (-q, q[:1], q.float()):
            with refuses("weights"):
                function(wrong, tokens, 4)
        with refuses("tokens", found="3"):
            function(q, tokens + 1, 4)
        with refuses("d"):
            function(q, tokens, 0)
