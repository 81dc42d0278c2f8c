"""The exact minimum of the 0-1 loss in the plane, and separability: exact arithmetic, brute force, known examples."""

import importlib
import math

import pytest
import torch
from hypothesis import assume, given, settings

from amem_core import AssociationProblem, zero_one_loss
from amem_core.landscape import max_margin, minimise_loss, minimise_zero_one, separable
from tests.oracles import refuses
from tests.planar import circles, doubles, least_error, planar, signed, whole_tokens
from tests.strategies import problems, seeds

module = importlib.import_module("amem_core.landscape.minimum")


@given(whole_tokens())
def test_the_sweep_finds_the_least_error(drawn):
    z, weights = drawn
    problem = planar(z, weights)
    best = minimise_zero_one(problem)
    least = float(least_error(z, weights))
    assert math.isclose(best.zero_one_loss, least, abs_tol=1e-15)
    # the matrix does what it says
    assert math.isclose(zero_one_loss(best.W, problem), least, abs_tol=1e-15)
    v = doubles(math.cos(best.angle), math.sin(best.angle))
    assert torch.allclose(best.W.T @ (problem.U[0] - problem.U[1]), v, atol=1e-15)
    margins = torch.tensor(z, dtype=torch.float64) @ v
    assert best.recalled.tolist() == (margins > 1e-13).tolist()
    assert math.isclose(float((problem.p * ~best.recalled).sum()), least, abs_tol=1e-15)


@settings(max_examples=20)
@given(circles(), seeds)
def test_no_random_direction_is_better(problem, seed):
    best = minimise_zero_one(problem)
    angles = 2 * math.pi * torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    V = torch.stack([angles.cos(), angles.sin()], -1)
    errors = ((signed(problem) @ V.T <= 0).double() * problem.p[:, None]).sum(0)
    assert float(errors.min()) >= float(best.zero_one_loss) - 1e-14
    normals = torch.atan2(problem.E[:, 1], problem.E[:, 0])
    ends = torch.cat([normals + math.pi / 2, normals - math.pi / 2]).remainder(2 * math.pi).sort().values
    middle = (ends + torch.cat([ends[1:], ends[:1] + 2 * math.pi])) / 2
    every = (signed(problem) @ torch.stack([middle.cos(), middle.sin()]) <= 0).double().mul(problem.p[:, None]).sum(0)
    assert abs(float(every.min() - best.zero_one_loss)) < 1e-14


@given(circles())
def test_the_minimiser_of_the_loss_never_recalls_more(problem):
    best = minimise_loss(problem)
    assert float(best.zero_one_loss) >= float(minimise_zero_one(problem).zero_one_loss) - 1e-14


def test_the_middle_of_the_widest_arc():
    one = minimise_zero_one(planar([[0.6, 0.8]], [1.0]))
    assert math.isclose(one.angle, math.atan2(0.8, 0.6), rel_tol=1e-15) and one.zero_one_loss == 0
    # two arcs of equal error, from keeping either the first and second token or the first and third
    z = torch.tensor([[math.cos(t), math.sin(t)] for t in (0.0, 2.0, -1.8)], dtype=torch.float64)
    best = minimise_zero_one(planar(z, [2.0, 1.0, 1.0]))
    assert best.recalled.tolist() == [True, False, True]
    assert math.isclose(best.angle, 2 * math.pi - 0.9, rel_tol=1e-14)


@pytest.mark.parametrize("angles", [(0.0, 2.0, -1.8, -1.8), (0.0, 1.8, -2.0, -2.0)])
def test_equal_errors_are_equal_whatever_their_rounding(angles):
    # beside the first token either the second or the last two can be kept, and 0.3 is not 0.1 + 0.2
    z = torch.tensor([[math.cos(t), math.sin(t)] for t in angles], dtype=torch.float64)
    best = minimise_zero_one(planar(z, [0.4, 0.3, 0.1, 0.2]))
    upper = angles[1] < -angles[2]
    assert best.recalled.tolist() == [True, upper, not upper, not upper]


def test_of_arcs_equally_wide_the_first_from_zero():
    turns = torch.linspace(0, 6.2, 40, dtype=torch.float64)
    angles = turns[:, None] + doubles(0.0, 2.0, -2.0)
    best = minimise_zero_one(planar(torch.stack([angles.cos(), angles.sin()], -1), [2.0, 1.0, 1.0]))
    ends = (turns[:, None] + doubles(2.0 - math.pi / 2, -math.pi / 2)).remainder(2 * math.pi)
    expected = (ends.amin(-1) + (math.pi - 2) / 2).remainder(2 * math.pi)
    assert torch.allclose(best.angle, expected, rtol=0, atol=1e-14)


def test_arcs_without_width_are_dropped():
    def opposite(width):  # both are recalled on an arc of this width only
        return planar([[1.0, 0.0], [math.cos(math.pi - width), math.sin(math.pi - width)]], [1.0, 1.0])

    assert minimise_zero_one(opposite(1e-12)).zero_one_loss == 0
    assert minimise_zero_one(opposite(1e-15)).zero_one_loss == 0.5
    assert minimise_zero_one(opposite(0.0)).zero_one_loss == 0.5


def test_tokens_that_cut_nothing():
    z = [[1.0, 0.0], [0.0, 0.0], [0.6, 0.8]]
    best = minimise_zero_one(planar(z, [2.0, 1.0, 0.0]))
    assert math.isclose(best.zero_one_loss, 1 / 3) and best.recalled.tolist() == [True, False, True]
    assert abs(math.remainder(float(best.angle), 2 * math.pi)) < 1e-15  # in the middle, as if the third were not there
    nothing = minimise_zero_one(planar([[0.0, 0.0]], [1.0]))
    assert nothing.zero_one_loss == 1 and nothing.recalled.tolist() == [False]


# Separability


@given(whole_tokens())
def test_separable_in_the_plane(drawn):
    z, weights = drawn
    assert separable(planar(z, weights)) == (least_error(z, [1] * len(z)) == 0)  # frequencies play no role


@given(problems(max_N=5, max_M=4, max_d=4))
def test_separable_where_there_is_a_maximum_margin(problem):
    try:
        best = max_margin(problem)
    except ValueError:
        assert not separable(problem)
        return
    assume(best.norm_squared < 1e6)  # beyond, separable by rounding alone
    assert separable(problem)


def test_what_is_separable_and_what_is_not():
    assert separable(AssociationProblem.orthonormal(30, 7))
    angles = torch.arange(12, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], -1)
    p = torch.full((12,), 1 / 12, dtype=torch.float64)
    assert separable(AssociationProblem(circle, circle, torch.arange(12), p))  # by the identity: d < N is no obstacle
    inside = torch.cat([0.2 * circle[:1], circle[1:]])  # an output among the others' hull is never the best
    assert not separable(AssociationProblem(circle, inside, torch.arange(12), p))
    assert not separable(AssociationProblem(0 * circle, circle, torch.arange(12), p))
    for scale in (1e-150, 1e-5, 1e150):
        assert separable(AssociationProblem(scale * circle, scale * circle, torch.arange(12), p))
    with refuses("problem", found="batch"):
        separable(AssociationProblem.two_tokens(doubles(0.1, 0.2), 0.5))


@given(seeds)
def test_two_classes_with_one_output_cannot_be_told_apart(seed):
    problem = AssociationProblem.gaussian(3, 3, 10, seed=seed)
    assert separable(problem)
    U = torch.stack([problem.U[0], problem.U[1], problem.U[0]])
    assert not separable(AssociationProblem(problem.E, U, problem.targets, problem.p))


@pytest.mark.parametrize(("gap", "answer"), [(1e-6, True), (1e-12, False), (0.0, False)])
def test_inputs_closer_than_the_reach_count_as_one(gap, answer):
    problem = AssociationProblem.planar(doubles(0.0, gap), torch.tensor([0, 1]))
    assert separable(problem) is answer


def test_random_embeddings_of_five_tokens():
    # Figure 6: three dimensions hold five tokens, two hardly ever do
    frequency = {
        d: sum(separable(AssociationProblem.spherical(5, 5, d, seed=seed)) for seed in range(60)) for d in (2, 3)
    }
    assert frequency[3] >= 58 and frequency[2] <= 8


def test_a_solver_without_an_answer_is_reported(monkeypatch):
    programme = importlib.import_module("amem_core.landscape.separability")
    stopped = type("Result", (), {"status": 1, "message": "Iteration limit reached."})
    monkeypatch.setattr(programme, "linprog", lambda *arguments, **options: stopped)
    with pytest.raises(RuntimeError, match="Iteration limit"):
        separable(AssociationProblem.orthonormal(2))


def test_separable_whatever_the_lengths_of_the_inputs():
    E = torch.tensor([[1e-300, 0.0], [0.0, 1e300]], dtype=torch.float64)
    U, p = torch.eye(2, dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert separable(AssociationProblem(E, U, torch.tensor([0, 1]), p))
