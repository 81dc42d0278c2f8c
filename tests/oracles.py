"""Plain implementations to compare with: autograd where torch is trusted, mpmath where it is not.

Nothing here uses the functions under test.
"""

import mpmath
import pytest
import torch
from torch import Tensor

from amem_core import AssociationProblem


def refuses(argument: str, found: str = "", allowed: str = "") -> pytest.RaisesExc:
    """A ``ValueError`` that names the argument, the value found and what is allowed."""
    return pytest.raises(ValueError, match=rf"(?s)^{argument}: found .*{found}.*, allowed: .*{allowed}")


def cross_entropy(W: Tensor, problem: AssociationProblem, layer_norm: bool = False) -> Tensor:
    """The loss of one matrix on one problem, by torch's own functions, for autograd."""
    hidden = problem.E @ W.T
    if layer_norm:
        hidden = torch.nn.functional.layer_norm(hidden, (problem.d,))
    losses = torch.nn.functional.cross_entropy(hidden @ problem.U.T, problem.targets, reduction="none")
    return (problem.p * losses).sum()


def autograd(W: Tensor, problem: AssociationProblem) -> Tensor:
    """Gradient of ``cross_entropy`` by autograd."""
    W = W.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(W, problem), W)[0]


def descend(W: Tensor, problem: AssociationProblem, rates: list[float]) -> Tensor:
    """The matrix after one step of autograd's gradient descent for each rate."""
    for rate in rates:
        W = W - rate * autograd(W, problem)
    return W


def hessian_by_autograd(W: Tensor, problem: AssociationProblem) -> Tensor:
    """Hessian of ``cross_entropy`` by autograd, (d, d, d, d)."""
    return torch.autograd.functional.hessian(lambda X: cross_entropy(X, problem), W)


def product_by_autograd(W: Tensor, problem: AssociationProblem, V: Tensor) -> Tensor:
    """That Hessian applied to a matrix."""
    return torch.autograd.functional.hvp(lambda X: cross_entropy(X, problem), W, V)[1]


def as_matrix(H: Tensor) -> Tensor:
    """(..., d, d, d, d) as (..., d^2, d^2)."""
    return H.flatten(-2).flatten(-3, -2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Independent N(0, 1) numbers of a seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def size_of(problem: AssociationProblem) -> float:
    """A bound on the entries of the Hessian: squared lengths of the embeddings."""
    return 1 + float(problem.E.square().sum(-1).max() * problem.U.square().sum(-1).max())


def member(problem: AssociationProblem, batch: torch.Size, index: tuple[int, ...]) -> AssociationProblem:
    """One problem out of a batch of them."""
    E, U = (X.expand(*batch, *X.shape[-2:])[index] for X in (problem.E, problem.U))
    targets, p = (X.expand(*batch, X.shape[-1])[index] for X in (problem.targets, problem.p))
    return AssociationProblem(E, U, targets, p)


def largest_curvature(problem: AssociationProblem) -> float:
    """A bound on the Hessian: half the largest eigenvalues of ``U U^T`` and of ``E^T diag(p) E``, multiplied.

    The covariance of a softmax is at most 1/2. Descent is stable at rates below 2 over this bound.
    """
    inputs = torch.linalg.matrix_norm(problem.E * problem.p.sqrt()[:, None], 2)
    return float(0.5 * inputs**2 * torch.linalg.matrix_norm(problem.U, 2) ** 2)


def exact_softmax(scores: list[float], target: int) -> tuple[list, list, mpmath.mpf]:
    """Log-probabilities, residuals ``softmax - onehot`` and loss of one token, to 60 digits."""
    with mpmath.workdps(60):
        weights = [mpmath.exp(mpmath.mpf(s) - max(scores)) for s in scores]
        total = mpmath.fsum(weights)
        others = [mpmath.fsum(w for k, w in enumerate(weights) if k != j) for j in range(len(scores))]
        # log(w / total) = -log1p(others / w): no digit is lost where the probability is close to 1
        logs = [-mpmath.log1p(o / w) if w else -mpmath.inf for o, w in zip(others, weights, strict=True)]
        residuals = [-others[j] / total if j == target else w / total for j, w in enumerate(weights)]
        return logs, residuals, -logs[target]
