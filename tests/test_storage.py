"""Outer-product memories: predictions against simulation, and what is refused."""

import pytest
import torch

from amem_core import AssociationProblem, scores, tightest_margin
from amem_core.storage import outer_products, predicted_density, predicted_recall, score_variance

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
