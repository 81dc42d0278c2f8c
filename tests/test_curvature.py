"""Hessian and Hessian-vector product, and curvature in batches, against autograd, differences and mpmath."""

import itertools

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amem_core import AssociationProblem, gradient, hessian, hessian_vector_product, sharpness, zipf_frequencies
from amem_core import curvature as module
from amem_core.curvature import mean_hessian
from tests.oracles import (
    as_matrix,
    exact_softmax,
    hessian_by_autograd,
    member,
    normal,
    product_by_autograd,
    refuses,
    size_of,
)
from tests.strategies import problems_with_start, seeds

# Hessian


@given(problems_with_start(max_N=4, max_M=4, max_d=5))
def test_the_hessian_is_that_of_autograd(drawn):
    problem, W = drawn
    difference = (hessian(W, problem) - hessian_by_autograd(W, problem)).abs().max()
    assert float(difference) < 1e-10
    assert float(difference) < 1e-14 * size_of(problem)  # in fact to rounding


@given(problems_with_start(max_N=4, max_M=4, max_d=5, reach=30.0))
def test_the_hessian_is_symmetric_and_has_no_negative_direction(drawn):
    problem, W = drawn
    H = hessian(W, problem)
    rounding = 1e-15 * size_of(problem)
    assert float((H - H.permute(2, 3, 0, 1)).abs().max()) <= rounding
    assert float((H - H.permute(2, 1, 0, 3)).abs().max()) <= rounding  # a covariance in the outputs alone
    assert float(torch.linalg.eigvalsh(as_matrix(H)).min()) >= -(problem.d**2) * rounding


@given(st.floats(5, 600), st.floats(0, 5), st.integers(0, 2))
def test_confident_tokens_keep_the_digits_of_their_curvature(margin, apart, right):
    # one token, orthonormal outputs: the Hessian holds the covariances q_z (delta - q_z') of a softmax
    scores = torch.tensor([0.0, -margin, -margin - apart], dtype=torch.float64).roll(right).tolist()
    problem = AssociationProblem.orthonormal(1, 3)
    W = torch.tensor(scores, dtype=torch.float64)[:, None] * problem.E[0]
    found = hessian(W, problem)[:, 0, :, 0]
    logs, *_ = exact_softmax(scores, 0)
    with mpmath.workdps(400):
        q = [mpmath.exp(value) for value in logs]
        q[right] = 1 - sum(q[z] for z in range(3) if z != right)
        largest = q[right] * sum(q[z] for z in range(3) if z != right)
        for z, y in itertools.product(range(3), repeat=2):
            exact = q[z] * sum(q[j] for j in range(3) if j != z) if z == y else -q[z] * q[y]
            assert abs(found[z, y].item() - exact) < 1e-12 * largest  # 600 roundings of the exponent


def test_what_all_outputs_share_does_not_count():
    problem = AssociationProblem.gaussian(6, 4, 3, seed=0)
    shared = AssociationProblem(problem.E, problem.U + 2.0**20, problem.targets, problem.p)
    W, V = normal(3, 3, seed=1), normal(3, 3, seed=2)
    W = W - W.mean(0)  # so that the shared part adds the same to all scores
    # the outputs keep 33 of their 53 bits
    assert torch.allclose(hessian(W, shared), hessian(W, problem), rtol=0, atol=1e-9)
    expected = hessian_vector_product(W, problem, V)
    assert torch.allclose(hessian_vector_product(W, shared, V), expected, rtol=0, atol=1e-9)


# Hessian-vector product


@given(problems_with_start(max_N=4, max_M=4, max_d=5), seeds)
def test_the_product_is_that_of_the_dense_hessian(drawn, seed):
    problem, W = drawn
    V = normal(problem.d, problem.d, seed=seed)
    dense = torch.einsum("ijkl,kl->ij", hessian(W, problem), V)
    assert float((hessian_vector_product(W, problem, V) - dense).abs().max()) < 1e-14 * size_of(problem) * problem.d


@given(problems_with_start(max_N=4, max_M=4, max_d=5), seeds)
def test_the_product_is_the_change_of_the_gradient(drawn, seed):
    problem, W = drawn
    V = normal(problem.d, problem.d, seed=seed)
    V = V / (V.norm() * (problem.E.norm(dim=-1).max() * problem.U.norm(dim=-1).max()).clamp_min(1))
    h = 1e-4  # scores move by at most h: the error is of order h^2, and rounding of order 1e-16 / h
    difference = (gradient(W + h * V, problem) - gradient(W - h * V, problem)) / (2 * h)
    error = (hessian_vector_product(W, problem, V) - difference).abs().max()
    assert float(error) < (h**2 + 1e-11) * size_of(problem)


@pytest.mark.parametrize(("N", "M", "d"), [(50, 7, 40), (7, 50, 40), (60, 60, 30)])
def test_the_product_of_a_larger_problem(N, M, d):
    problem = AssociationProblem.spherical(N, M, d, seed=0, p=zipf_frequencies(N))
    W, V = normal(d, d, seed=1), normal(d, d, seed=2)
    found, expected = hessian_vector_product(W, problem, V), product_by_autograd(W, problem, V)
    assert float((found - expected).norm() / expected.norm()) < 1e-13


# Mean Hessian of a segment


@given(problems_with_start(max_N=4, max_M=4, max_d=5), seeds)
def test_the_mean_hessian_leads_from_one_gradient_to_the_other(drawn, seed):
    problem, A = drawn
    B = A + normal(problem.d, problem.d, seed=seed) / size_of(problem) ** 0.5
    change = torch.einsum("ijkl,kl->ij", mean_hessian(A, B, problem), B - A)
    error = (change - (gradient(B, problem) - gradient(A, problem))).abs().max()
    assert float(error) < 1e-12 * size_of(problem)


def test_mean_hessians_in_a_batch_are_those_of_its_members():
    problem, W = grid(2, 2)
    found = mean_hessian(W, 0 * W[0], problem, nodes=8)
    assert found.shape == (4, 3, 2, 2, 2, 2, 2)
    one = member(problem, torch.Size([3, 2]), (1, 1))
    assert torch.allclose(
        found[2, 1, 1], mean_hessian(W[2, 0, 1], 0 * W[0, 0, 1], one, nodes=8), rtol=1e-12, atol=1e-15
    )


# Batches


def grid(M, d, seed=0):
    """Batches in all places: inputs (3, 1), outputs (2,), targets (2,), frequencies (3, 1), matrices (4, 1, 2)."""
    N = 5
    targets = torch.randint(M, (2, N), generator=torch.Generator().manual_seed(seed))
    p = torch.softmax(normal(3, 1, N, seed=seed + 1), -1)
    problem = AssociationProblem(normal(3, 1, N, d, seed=seed + 2), normal(2, M, d, seed=seed + 3), targets, p)
    return problem, normal(4, 1, 2, d, d, seed=seed + 4)


@pytest.mark.parametrize(("M", "d"), [(2, 2), (2, 3), (3, 3), (3, 17)])
@pytest.mark.parametrize("piece", [1, 700, 2**19])
def test_batches_hold_their_members(monkeypatch, M, d, piece):
    problem, W = grid(M, d)
    monkeypatch.setattr(module, "PIECE", piece)
    V = normal(1, 3, 1, d, d, seed=9)
    found, products = sharpness(W, problem), hessian_vector_product(W, problem, V)
    assert found.shape == (4, 3, 2) and products.shape == (4, 3, 2, d, d)
    dense = hessian(W, problem) if d <= 3 else None
    batch = torch.Size([4, 3, 2])
    for index in itertools.islice(itertools.product(range(4), range(3), range(2)), 0, 24, 5):
        one, Wi = member(problem, batch, index), W.expand(*batch, d, d)[index]
        assert torch.allclose(found[index], sharpness(Wi, one), rtol=1e-12, atol=0)
        expected = hessian_vector_product(Wi, one, V.expand(*batch, d, d)[index])
        assert torch.allclose(products[index], expected, rtol=1e-12, atol=1e-14)
        if dense is not None:
            assert torch.allclose(dense[index], hessian(Wi, one), rtol=1e-12, atol=1e-14)


def test_the_curvature_does_not_depend_on_the_targets():
    problem = AssociationProblem.gaussian(3, 3, 3, seed=0)
    W, targets = normal(3, 3), torch.tensor([[0, 1, 2], [2, 2, 2]])
    both = AssociationProblem(problem.E, problem.U, targets, problem.p)
    assert torch.equal(sharpness(W, both), sharpness(W, problem).expand(2))
    assert torch.equal(hessian(W, both), hessian(W, problem).expand(2, 3, 3, 3, 3))
    assert torch.equal(hessian_vector_product(W, both, W), hessian_vector_product(W, problem, W).expand(2, 3, 3))


def test_a_batch_may_be_empty():
    problem = AssociationProblem.orthonormal(3)
    W = torch.zeros(0, 3, 3, dtype=torch.float64)
    assert sharpness(W, problem).shape == (0,) and hessian(W, problem).shape == (0, 3, 3, 3, 3)


# What is refused


def test_bad_arguments_are_refused():
    problem, W = AssociationProblem.orthonormal(2), torch.zeros(2, 2, dtype=torch.float64)
    large = AssociationProblem.orthonormal(17)
    with refuses("problem", found="17", allowed="d <= 16"):
        hessian(torch.zeros(17, 17, dtype=torch.float64), large)
    with refuses("W", found="3, 3"):
        sharpness(torch.zeros(3, 3, dtype=torch.float64), problem)
    with refuses("V", found="float32"):
        hessian_vector_product(W, problem, W.float())
    with refuses("W, V, problem"):
        hessian_vector_product(W.expand(3, 2, 2), problem, W.expand(2, 2, 2))
    for wrong in (0.0, -1.0, float("nan")):
        with refuses("tolerance"):
            sharpness(W, problem, tolerance=wrong)
    for function in (hessian, sharpness):
        with pytest.raises(OverflowError, match=function.__name__):
            far = AssociationProblem(1e200 * problem.E, problem.U, problem.targets, problem.p)
            function(W, far)
