"""What two classes read of a matrix, and when the flow has them all recalled: algebra, descent, units of time."""

import math

import pytest
import torch
from hypothesis import assume, given

from amem_core import AssociationProblem, tightest_margin
from amem_core.dynamics import gradient_flow
from amem_core.landscape import flow_hitting_time, hitting_times, matrix_of_reading, reading
from tests.oracles import normal, refuses
from tests.strategies import problems_with_start

# What two classes read


@given(problems_with_start(max_M=2))
def test_all_margins_are_products_with_the_reading(drawn):
    problem, W = drawn
    assume(problem.M == 2 and not torch.equal(problem.U[0], problem.U[1]))
    sign = 1 - 2 * problem.targets.double()
    margins = sign * (problem.E @ reading(W, problem))
    size = 1 + float(problem.E.norm(dim=-1).max() * W.norm() * problem.U.norm())
    assert float((margins - tightest_margin(W, problem)).abs().max()) < 1e-14 * size


def test_the_smallest_matrix_has_the_reading_and_is_orthogonal_to_what_is_not_read():
    problem = AssociationProblem.gaussian(4, 2, 5, seed=0)
    v = normal(7, 5)
    W = matrix_of_reading(v, problem)
    assert W.shape == (7, 5, 5) and torch.allclose(reading(W, problem), v, rtol=0, atol=1e-13)
    other = normal(5, 5, seed=1)
    unread = other - matrix_of_reading(reading(other, problem), problem)
    assert float((W * unread).sum((-2, -1)).abs().max()) < 1e-13  # so any other one with the reading is longer


def test_batches_of_problems_and_of_matrices():
    problem = AssociationProblem.two_tokens(0.5, 0.75, output_distance_squared=torch.tensor([0.5, 2.0]).double())
    W = normal(3, 1, 2, 2)
    found = reading(W, problem)
    assert found.shape == (3, 2, 2)
    for k, c in enumerate((0.5, 2.0)):
        one = AssociationProblem.two_tokens(0.5, 0.75, output_distance_squared=c)
        assert torch.allclose(found[:, k], reading(W[:, 0], one), rtol=0, atol=1e-15)
        assert torch.allclose(matrix_of_reading(found, problem)[:, k], matrix_of_reading(found[:, k], one))


def test_what_cannot_be_read_is_refused():
    problem, eye = AssociationProblem.orthonormal(2), torch.eye(2, dtype=torch.float64)
    with refuses("problem", found="M = 3", allowed="M = 2"):
        reading(torch.eye(3, dtype=torch.float64), AssociationProblem.orthonormal(3))
    with refuses("problem", found="two equal"):
        reading(eye, AssociationProblem(eye, torch.ones_like(eye), torch.arange(2), problem.p))
    with refuses("W"):
        reading(torch.eye(3, dtype=torch.float64), problem)
    with refuses("v"):
        matrix_of_reading(torch.ones(3, dtype=torch.float64), problem)
    with refuses("v", found="float32"):
        matrix_of_reading(torch.ones(2), problem)


# When the flow has recalled everything


@pytest.mark.parametrize(("alpha", "p1"), [(0.5, 0.9), (0.9, 0.75), (0.95, 0.6)])
def test_descent_at_a_small_rate_needs_this_time(alpha, p1):
    tau = flow_hitting_time(AssociationProblem.two_tokens(alpha, p1))
    rate = tau / 20_000
    # Euler's error of the time is of the order of one step, and of some more where the flow is curved
    assert abs(int(hitting_times(alpha, p1, rate, steps=50_000)) * rate / tau - 1) < 1e-3


def test_before_this_time_something_is_not_recalled():
    problem = AssociationProblem.spherical(5, 5, 4, seed=1)
    tau = flow_hitting_time(problem)
    assert 0 < tau < math.inf
    times = torch.tensor([0.5, 0.9, 1 - 1e-5, 1 + 1e-5], dtype=torch.float64) * tau
    recalled = (gradient_flow(problem, times=times).tightest_margin > 0).all(-1)
    assert recalled.tolist() == [False, False, False, True]


def test_the_squared_distance_of_the_outputs_is_a_unit_of_time():
    near, far = (AssociationProblem.two_tokens(0.9, 0.8, output_distance_squared=c) for c in (0.5, 2.0))
    assert math.isclose(flow_hitting_time(near), 4 * flow_hitting_time(far), rel_tol=1e-7)


def test_at_once_and_never():
    assert flow_hitting_time(AssociationProblem.two_tokens(-0.5, 0.75)) == 0
    twins = AssociationProblem.two_tokens(1.0, 0.75)  # one input, two answers
    assert flow_hitting_time(twins, latest=10.0) == math.inf
    assert flow_hitting_time(AssociationProblem.two_tokens(0.9, 0.75), latest=1.0) == math.inf


def test_bad_times_are_refused():
    problem = AssociationProblem.two_tokens(0.5, 0.75)
    with refuses("earliest"):
        flow_hitting_time(problem, earliest=0.0)
    with refuses("latest"):
        flow_hitting_time(problem, earliest=1.0, latest=1.0)
    with refuses("problem", found="batch"):
        flow_hitting_time(AssociationProblem.two_tokens(torch.zeros(2).double(), 0.75))
