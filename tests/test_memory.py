"""One memory: values against plain torch and mpmath, extremes included."""

import itertools

import mpmath
import pytest
import torch
from hypothesis import given
from torch import Tensor

import amem_core
from amem_core import (
    AssociationProblem,
    gradient,
    log_probabilities,
    loss,
    margins,
    predictions,
    scores,
    tightest_margin,
    zero_one_loss,
)
from amem_core.memory import residuals
from tests.oracles import autograd, cross_entropy, exact_softmax, member, refuses
from tests.strategies import problems_with_start

D = torch.float64
EPS = torch.finfo(D).eps
FUNCTIONS = [loss, gradient, scores, log_probabilities, margins, tightest_margin, zero_one_loss, predictions]


def terms(problem: AssociationProblem) -> float:
    """Largest sum of absolute terms in an entry of the gradient: what its rounding is relative to."""
    return float((problem.U.abs().sum(0)[:, None] * (problem.p @ problem.E.abs())).max())


@given(problems_with_start())
def test_gradient_agrees_with_autograd_in_double_and_single_precision(drawn):
    problem, W = drawn
    expected = autograd(W, problem)
    # a few roundings in each of at most five terms; scores of size 3 amplify by less than 10
    assert float((gradient(W, problem) - expected).abs().max()) <= 1e-12 * terms(problem)
    narrow = gradient(W.float(), problem.to(torch.float32))
    underflow = torch.finfo(torch.float32).tiny * 100
    assert float((narrow.double() - expected).abs().max()) <= 1e-5 * terms(problem) + underflow


@given(problems_with_start())
def test_gradient_agrees_with_finite_differences(drawn):
    problem, W = drawn
    generator = torch.Generator().manual_seed(0)
    V = torch.randn(W.shape, dtype=D, generator=generator)
    V = V / max(1.0, float((problem.E @ V.mT @ problem.U.mT).abs().max()))
    h = 1e-4
    slope = (loss(W + h * V, problem) - loss(W - h * V, problem)) / (2 * h)
    # third derivative along V: a third cumulant of scores within [-1, 1], less than 1; so h^2/6,
    # and the rounding of the two losses, of size at most 3 + log 4
    allowed = h**2 / 6 + 16 * EPS * 5 / h
    assert abs(float(slope - (gradient(W, problem) * V).sum())) < allowed


@given(problems_with_start())
def test_loss_can_be_differentiated_and_gives_the_closed_form(drawn):
    problem, W = drawn
    W = W.clone().requires_grad_()
    value = loss(W, problem)
    assert abs(float(value.detach() - cross_entropy(W.detach(), problem))) < 32 * EPS * 5
    found = torch.autograd.grad(value, W)[0]
    assert float((found - gradient(W.detach(), problem)).abs().max()) <= 1e-12 * terms(problem)


@given(problems_with_start(reach=30.0))
def test_readings_agree_with_their_definitions(drawn):
    problem, W = drawn
    w = torch.tensor([[float(u @ (W @ e)) for u in problem.U] for e in problem.E], dtype=D)
    rounding = 100 * EPS * max(1.0, float(W.abs().max() * problem.E.abs().max() * problem.U.abs().max()) * problem.d**2)
    assert float((scores(W, problem) - w).abs().max()) < rounding
    m = margins(W, problem)
    for x, y in enumerate(problem.targets.tolist()):
        assert torch.equal(m[x], (scores(W, problem)[x, y] - scores(W, problem)[x]))
        wrong = [float(m[x, j]) for j in range(problem.M) if j != y]
        assert float(tightest_margin(W, problem)[x]) == min(wrong)
    log_p = log_probabilities(W, problem)
    assert float((log_p.exp().sum(-1) - 1).abs().max()) < 100 * EPS
    chosen = log_p.gather(-1, problem.targets[:, None])[:, 0]
    assert abs(float(loss(W, problem) + problem.p @ chosen)) < 1e3 * EPS * 30
    assert torch.equal(predictions(W, problem), scores(W, problem).argmax(-1))
    missed = tightest_margin(W, problem) <= 0
    assert abs(float(zero_one_loss(W, problem) - problem.p[missed].sum())) < 16 * EPS


@pytest.mark.parametrize("size", [0.0, 0.5, 40.0, 700.0, 1e6])
@pytest.mark.parametrize("row", [(1, 0), (0, 1), (1, 0, 0), (0, 1, 0.5), (0, 1, 1), (-1, 0.25, 0, 1), (1, 1, 1, 1)])
def test_small_losses_probabilities_and_residuals_keep_their_relative_precision(size, row):
    M = len(row)
    # one token, canonical embeddings: the scores are the first column of W, exactly
    problem = AssociationProblem.orthonormal(1, M)
    W = torch.zeros(M, M, dtype=D)
    W[:, 0] = torch.tensor(row, dtype=D) * size
    logs, residuals, exact_loss = exact_softmax(W[:, 0].tolist(), 0)
    _close(loss(W, problem), exact_loss)
    for j in range(M):
        _close(log_probabilities(W, problem)[0, j], logs[j])
        _close(gradient(W, problem)[j, 0], residuals[j])


def _close(found: Tensor, exact: mpmath.mpf) -> None:
    # exp, log1p and a sum of three: a dozen roundings; what is below the normal range may lose all
    assert abs(mpmath.mpf(float(found)) - exact) <= 12 * EPS * abs(exact) + torch.finfo(D).tiny


@pytest.mark.parametrize("margin", [10.0, 40.0, 80.0])
def test_single_precision_keeps_the_relative_precision_of_small_losses(margin):
    problem = AssociationProblem.orthonormal(1, 2).to(torch.float32)
    found = loss(torch.diag(torch.tensor([margin, 0.0])), problem)
    assert abs(float(found) / float(mpmath.log1p(mpmath.exp(-margin))) - 1) < 12 * torch.finfo(torch.float32).eps


def test_a_tie_is_an_error_and_goes_to_the_lowest_class():
    problem = AssociationProblem.orthonormal(3, p=torch.tensor([0.5, 0.25, 0.25], dtype=D))
    W = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=D)  # token 0 ties classes 0 and 1
    assert predictions(W, problem).tolist() == [0, 1, 2]
    assert float(zero_one_loss(W, problem)) == 0.5
    assert tightest_margin(W, problem).tolist() == [0.0, 1.0, 1.0]
    assert float(zero_one_loss(0 * W, problem)) == 1.0
    assert predictions(0 * W, problem).tolist() == [0, 0, 0]


def test_a_token_that_never_occurs_counts_for_nothing():
    p = torch.tensor([0.0, 1.0], dtype=D)
    problem = AssociationProblem.orthonormal(2, p=p)
    W = torch.tensor([[-1e6, 0], [0, 1e6]], dtype=D)  # it is confidently wrong
    assert float(zero_one_loss(W, problem)) == 0.0
    assert float(loss(W, problem)) == 0.0
    assert float(gradient(W, problem).abs().max()) == 0.0


def test_batches_of_everything_broadcast_as_a_loop_over_members_would():
    generator = torch.Generator().manual_seed(0)
    N, M, d = 3, 2, 4

    def draw(batch, *shape):
        return torch.randn(*batch, *shape, dtype=D, generator=generator)

    for shapes in itertools.product([(), (3,), (2, 1)], repeat=5):
        of_W, of_E, of_U, of_targets, of_p = shapes
        targets = torch.randint(M, (*of_targets, N), generator=generator)
        problem = AssociationProblem(draw(of_E, N, d), draw(of_U, M, d), targets, draw(of_p, N).softmax(-1))
        W = draw(of_W, d, d)
        batch = torch.broadcast_shapes(*shapes)
        for function in FUNCTIONS:
            together = function(W, problem)
            for index in {tuple(0 for _ in batch), tuple(size - 1 for size in batch)}:
                W_one = W.expand(*batch, d, d)[index]
                alone = function(W_one, member(problem, batch, index))
                one = together.expand((*batch, *alone.shape))[index]
                # sums in another order
                assert torch.allclose(one, alone, rtol=1e-12, atol=1e-13), (function.__name__, shapes, index)


def test_shapes_of_the_results():
    problem = AssociationProblem.orthonormal(3, 4, 5)
    W = torch.zeros(7, 1, 5, 5, dtype=D)
    expected = [(), (5, 5), (3, 4), (3, 4), (3, 4), (3,), (), (3,)]
    for function, shape in zip(FUNCTIONS, expected, strict=True):
        assert function(W, problem).shape == (7, 1, *shape)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_what_leaves_the_range_is_an_error_and_never_infinite(dtype):
    largest = torch.finfo(dtype).max
    problem = AssociationProblem.orthonormal(2).to(dtype)
    W = torch.tensor([[-0.9, 0], [0.9, 0]], dtype=dtype) * largest  # finite scores, infinite margin
    assert float(scores(W, problem)[0, 1]) == pytest.approx(0.9 * largest)
    for function in (loss, margins, tightest_margin, log_probabilities):
        with pytest.raises(OverflowError, match=rf"{function.__name__}.*{dtype}"):
            function(W, problem)
    long = AssociationProblem(problem.E * 4, problem.U, problem.targets, problem.p)
    with pytest.raises(OverflowError, match="scores"):
        scores(W, long)


def test_gradient_stays_exact_where_margins_overflow_nothing():
    # margins of 1e6 and embeddings of 1e3: probabilities are 0 and 1, the gradient is finite
    problem = AssociationProblem(
        1e3 * torch.eye(2, dtype=D), torch.eye(2, dtype=D), torch.arange(2), torch.ones(2, dtype=D) / 2
    )
    W = torch.tensor([[-1e3, 0], [0, 1e3]], dtype=D)
    assert gradient(W, problem).tolist() == [[-500.0, 0.0], [500.0, 0.0]]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("W", "found", "allowed"),
    [
        (torch.zeros(2, dtype=D), r"\(2,\)", r"\(\.\.\., 3, 3\)"),
        (torch.zeros(2, 3, dtype=D), r"\(2, 3\)", "dimension 3"),
        (torch.zeros(3, 2, dtype=D), r"\(3, 2\)", "dimension 3"),
        (torch.zeros(2, 2, dtype=D), r"\(2, 2\)", "dimension 3"),
        (torch.zeros(3, 3), "torch.float32", "torch.float64"),
        (torch.zeros(3, 3, dtype=torch.int64), "torch.int64", "torch.float64"),
        (torch.full((3, 3), torch.nan, dtype=D), "NaN", "finite"),
        (torch.full((3, 3), torch.inf, dtype=D), "infinite", "finite"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(function, W, found, allowed):
    with refuses("W", found, allowed):
        function(W, AssociationProblem.orthonormal(3))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_batches_that_do_not_broadcast_are_refused(function):
    problem = AssociationProblem.two_tokens(torch.zeros(2, dtype=D), 0.5)
    with refuses("W, problem", r"\(3,\), \(2,\)", "broadcast"):
        function(torch.zeros(3, 2, 2, dtype=D), problem)


def test_the_package_offers_what_it_lists():
    assert all(hasattr(amem_core, name) for name in amem_core.__all__)
    assert {function.__name__ for function in FUNCTIONS} <= set(amem_core.__all__)


@pytest.mark.parametrize("M", [2, 127, 128, 300])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e6])
def test_residuals_in_place_are_those_that_can_be_differentiated(M, size):
    generator = torch.Generator().manual_seed(M)
    w = size * torch.randn(5, M, dtype=D, generator=generator)
    targets = torch.randint(M, (5,), generator=generator)
    expected = residuals(w, targets)
    found = residuals(w, targets, out=torch.empty_like(w))
    # the same exponentials, each sum of M terms in another order
    assert bool(((found - expected).abs() <= M * EPS * expected.abs() + torch.finfo(D).tiny).all())
