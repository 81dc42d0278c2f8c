"""Sharpness and its map, against autograd, dense eigenvalues, power iteration and closed forms."""

import importlib
import itertools

import mpmath
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import ArpackNoConvergence

from amem_core import AssociationProblem, gradient, hessian, sharpness, zipf_frequencies
from amem_core import curvature as module
from amem_core.landscape import planar_directions, sharpness_map
from tests.oracles import as_matrix, hessian_by_autograd, normal, product_by_autograd, refuses, size_of
from tests.strategies import problems_with_start, seeds


@given(problems_with_start(max_N=4, max_M=4, max_d=4, reach=10.0))
def test_sharpness_is_the_largest_eigenvalue_of_autograds_hessian(drawn):
    problem, W = drawn
    expected = torch.linalg.eigvalsh(as_matrix(hessian_by_autograd(W, problem))).max()
    assert abs(float(sharpness(W, problem) - expected)) < 1e-13 * size_of(problem)


@settings(max_examples=12)
@given(st.integers(17, 21), st.integers(1, 30), st.integers(3, 9), st.sampled_from([0.0, 1.0, 10.0, 60.0]), seeds)
def test_lanczos_finds_the_eigenvalue_of_the_dense_matrix(d, N, M, reach, seed):
    problem = AssociationProblem.gaussian(N, M, d, seed=seed, p=zipf_frequencies(N))
    W = reach * normal(d, d, seed=seed) / d**0.5
    dense = torch.linalg.eigvalsh(as_matrix(module._dense(W, problem.E, problem.U, problem.p)))[-1]
    assert float(dense) > 0
    assert abs(float(sharpness(W, problem) / dense) - 1) < 1e-8


@pytest.mark.parametrize("problem", [AssociationProblem.orthonormal(20), AssociationProblem.orthonormal(3, 5, 18)])
def test_lanczos_where_eigenvalues_coincide(problem):
    W = torch.zeros(problem.d, problem.d, dtype=torch.float64)
    assert abs(float(sharpness(W, problem)) * problem.N * problem.M - 1) < 1e-12
    # one token at the softmax (1/2, 1/2, 0, ...) is the sharpest
    W[0, 0] = W[1, 0] = 60.0
    assert abs(float(sharpness(W, problem)) * 2 * problem.N - 1) < 1e-12


def test_lanczos_where_all_tokens_are_confident():
    # ARPACK's stopping rule is absolute below 1e-11
    problem = AssociationProblem.gaussian(25, 25, 30, seed=1)  # here the first twenty iterations do not suffice
    W = 60 * torch.linalg.pinv(problem.U) @ torch.linalg.pinv(problem.E).mT
    dense = torch.linalg.eigvalsh(as_matrix(module._dense(W, problem.E, problem.U, problem.p)))[-1]
    assert float(dense) < 1e-24
    assert abs(float(sharpness(W, problem) / dense) - 1) < 1e-13


def test_sharpness_of_a_large_problem_by_power_iteration():
    d, N = 48, 150
    problem = AssociationProblem.spherical(N, N, d, seed=3, p=zipf_frequencies(N, 1.5))
    W = -200 * gradient(torch.zeros(d, d, dtype=torch.float64), problem)
    V = normal(d, d, seed=4)
    for _ in range(300):
        HV = product_by_autograd(W, problem, V / V.norm())
        value, V = float((V / V.norm() * HV).sum()), HV
    residual = float((V - value * V / V.norm()).norm()) / value
    assert residual < 1e-4  # an eigenvalue to the square of it, over the gap
    assert abs(float(sharpness(W, problem)) / value - 1) < 1e-7


@given(problems_with_start(max_N=6, max_M=2, max_d=4), seeds)
def test_for_two_classes_zero_is_the_sharpest_matrix(drawn, seed):
    problem, _ = drawn
    assume(problem.M == 2)
    d = problem.d
    W = normal(20, d, d, seed=seed) * torch.logspace(-2, 2, 20, dtype=torch.float64)[:, None, None]
    top = sharpness(torch.zeros(d, d, dtype=torch.float64), problem)
    c = (problem.U[0] - problem.U[1]).square().sum()
    inputs = (problem.E.mT * problem.p) @ problem.E
    assert torch.allclose(top, c / 4 * torch.linalg.matrix_norm(inputs, 2), rtol=1e-12, atol=1e-15)
    assert bool((sharpness(W, problem) <= top * (1 + 1e-12)).all())


def test_for_three_classes_zero_is_not_the_sharpest():
    problem = AssociationProblem.orthonormal(1, 3)
    W = torch.zeros(3, 3, dtype=torch.float64)
    assert abs(float(sharpness(W, problem)) - 1 / 3) < 1e-15
    W[:2, 0] = 50.0
    assert abs(float(sharpness(W, problem)) - 1 / 2) < 1e-15


@pytest.mark.parametrize(("N", "d"), [(3, 20), (40, 20), (40, 1), (5, 300)])
def test_two_classes_in_any_dimension(N, d):
    problem = AssociationProblem.gaussian(N, 2, d, seed=N, p=zipf_frequencies(N))
    W = 3 * normal(d, d, seed=d)
    by_lanczos = module._largest_by_lanczos(W, problem.E, problem.U, problem.p, 1e-12) if d > 4 else None
    dense = torch.linalg.eigvalsh(as_matrix(module._dense(W, problem.E, problem.U, problem.p)))[-1] if d <= 20 else None
    for expected in (by_lanczos, dense):
        assert expected is None or abs(float(sharpness(W, problem) / expected) - 1) < 1e-11


@pytest.mark.parametrize(("M", "d"), [(2, 2), (2, 20), (3, 4), (3, 20)])
def test_no_curvature_at_all_and_hardly_any(M, d):
    problem = AssociationProblem.orthonormal(1, M, d) if d >= M else None
    W = torch.zeros(d, d, dtype=torch.float64)
    W[0, 0] = 1e4
    assert sharpness(W, problem) == 0
    same = AssociationProblem(problem.E, torch.ones_like(problem.U), problem.targets, problem.p)
    assert sharpness(W, same) == 0
    W[0, 0] = 300.0  # the curvature exp(-300) of a token is far below ARPACK's absolute threshold
    # q_1 = 1, and the others' covariance about it is exp(-300) (I + 1 1^T), with M - 1 others
    assert abs(float(sharpness(W, problem)) / float(mpmath.exp(-300) * M) - 1) < 1e-12


def test_rounding_to_single_precision():
    for problem in (AssociationProblem.spherical(30, M, d, seed=M) for M, d in ((2, 2), (2, 30), (3, 5), (4, 20))):
        W = normal(problem.d, problem.d)
        single = sharpness(W.float(), problem.to(torch.float32))
        assert single.dtype == torch.float32
        assert abs(float(single / sharpness(W, problem)) - 1) < 1e-5
    assert hessian(torch.zeros(2, 2), AssociationProblem.orthonormal(2).to(torch.float32)).dtype == torch.float32


def test_the_same_bits_each_time():
    problem = AssociationProblem.spherical(30, 30, 24, seed=0)
    W = normal(24, 24)
    assert torch.equal(sharpness(W, problem), sharpness(W, problem))


def test_iterations_that_do_not_converge_are_reported(monkeypatch):
    def never(*arguments, **options):
        raise ArpackNoConvergence("No convergence (%s)", [], [])

    monkeypatch.setattr(module, "eigsh", never)
    with pytest.raises(RuntimeError, match="tolerance = 1e-09"):
        sharpness(torch.zeros(17, 17, dtype=torch.float64), AssociationProblem.orthonormal(17), tolerance=1e-9)


# Maps


@pytest.mark.parametrize(("N", "M", "d"), [(30, 2, 2), (4, 3, 3)])
@pytest.mark.parametrize("rows", [1, 2**20])
def test_a_map_holds_the_sharpness_of_its_matrices(monkeypatch, N, M, d, rows):
    monkeypatch.setattr(importlib.import_module("amem_core.landscape.sharpness_map"), "ROWS", rows)
    problem = AssociationProblem.spherical(N, M, d, seed=0)
    D = planar_directions(problem) if d == 2 else normal(2, d, d)
    a, b = torch.linspace(-3, 3, 5, dtype=torch.float64), torch.tensor([0.5, 0.0, -20.0], dtype=torch.float64)
    origin = normal(d, d, seed=1)
    found = sharpness_map(problem, D, a, b, origin)
    assert found.shape == (3, 5)
    for j, i in itertools.product(range(3), range(5)):
        expected = torch.linalg.eigvalsh(as_matrix(hessian_by_autograd(origin + a[i] * D[0] + b[j] * D[1], problem)))[
            -1
        ]
        assert abs(float(found[j, i] - expected)) < 1e-13
    centred = sharpness_map(problem, D, a, b)
    assert torch.allclose(centred[1, 2], sharpness(0 * origin, problem), rtol=1e-14)


def test_bad_maps_are_refused():
    problem = AssociationProblem.two_tokens(0.5, 0.75)
    D, line = planar_directions(problem), torch.tensor([0.0, 1.0], dtype=torch.float64)
    for arguments, name in (((D[0], line, line), "directions"), ((D, line.float(), line), "a"), ((D, line, D), "b")):
        with refuses(name):
            sharpness_map(problem, *arguments)
    with refuses("problem", found="batch"):
        sharpness_map(AssociationProblem.two_tokens(line / 2, 0.5), D, line, line)


@pytest.mark.parametrize(("length", "margin"), [(1e-90, 0.0), (1e-90, 30.0), (1e-3, 600.0), (1e80, 0.0), (1e80, 600.0)])
def test_lanczos_keeps_the_digits_of_one_token_at_any_scale(length, margin):
    # one token, three orthonormal outputs: the eigenvalues of a 3 x 3 covariance, by mpmath
    d = 20
    E, U = torch.zeros(1, d, dtype=torch.float64), torch.eye(3, d, dtype=torch.float64)
    E[0, 0] = length
    W = torch.zeros(d, d, dtype=torch.float64)
    W[0, 0] = margin / length
    problem = AssociationProblem(E, U, torch.tensor([0]), torch.ones(1, dtype=torch.float64))
    with mpmath.workdps(40):
        weights = [mpmath.exp(margin), mpmath.mpf(1), mpmath.mpf(1)]
        q = [w / sum(weights) for w in weights]
        covariance = mpmath.matrix(3, 3)
        for i, j in itertools.product(range(3), repeat=2):
            # at i = j the mass of the others, not 1 - q
            covariance[i, j] = q[i] * sum(q[:i] + q[i + 1 :]) if i == j else -q[i] * q[j]
        largest = float(max(mpmath.eigsy(covariance / covariance[0, 0], eigvals_only=True)) * covariance[0, 0])
    assert abs(float(sharpness(W, problem)) / length**2 / largest - 1) < 1e-8
