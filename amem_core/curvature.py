r"""Curvature of the loss: Hessian, Hessian-vector product and sharpness, each called as ``f(W, problem)``.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension; ``q`` are the probabilities :math:`p_W(\cdot \mid x)`.
A token adds its frequency times the covariance of the outputs under ``q``, times :math:`e_x e_x^\top`. All is
computed from the masses beside the likeliest class, never as ``1 - (1 - small)``: a token recalled with a
margin of 600 keeps the digits of its curvature.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from amem_core.memory import check_weights, gradient_of, scores_of
from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_broadcast, require_count, require_positive

#: the largest dimension for which the d^2 x d^2 matrix is formed
DENSE = 16
# numbers that one piece of a large batch may take, 4 MiB in float64: twice as fast as pieces that leave the cache
PIECE = 2**19


def hessian(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out d d d d"]:
    r"""Hessian of the loss, Eq. (26) of [CSB24], in the index order of ``W`` twice.

    .. math:: \frac{\partial^2 \mathcal L}{\partial W_{ij}\,\partial W_{kl}} = \sum_x p(x) \sum_{z,z'}
        p_W(z \mid x)\,\bigl(\delta_{zz'} - p_W(z' \mid x)\bigr)\; u_{z,i}\, e_{x,j}\, u_{z',k}\, e_{x,l}.

    Raises ``ValueError`` for ``d > 16``, where ``hessian_vector_product`` and ``sharpness`` need no such matrix.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> hessian(torch.zeros(2, 2, dtype=torch.float64), problem).reshape(4, 4)
    tensor([[ 0.1250,  0.0000, -0.1250,  0.0000],
            [ 0.0000,  0.1250,  0.0000, -0.1250],
            [-0.1250,  0.0000,  0.1250,  0.0000],
            [ 0.0000, -0.1250,  0.0000,  0.1250]], dtype=torch.float64)
    """
    check_weights(W, problem)
    require(problem.d <= DENSE, "problem", f"d = {problem.d}", f"d <= {DENSE}; hessian_vector_product beyond")
    batch = torch.broadcast_shapes(W.shape[:-2], problem.batch_shape)  # the targets' too, on which nothing depends
    return finite("hessian", _dense(W, problem.E, problem.U, problem.p)).expand(*batch, *[problem.d] * 4)


def mean_hessian(
    A: Float[Tensor, "*batch d d"], B: Float[Tensor, "*batch_B d d"], problem: AssociationProblem, *, nodes: int = 80
) -> Float[Tensor, "*out d d d d"]:
    r"""Mean of the Hessian over the segment from ``A`` to ``B``, by Gauss-Legendre quadrature.

    Applied to ``B - A`` it gives the difference of the two gradients: in a cycle of two of descent at rate
    :math:`\eta`, ``B - A`` is an eigenvector with the eigenvalue :math:`2/\eta`. ``ValueError`` as for ``hessian``.

    >>> from amem_core import gradient
    >>> problem, V = AssociationProblem.orthonormal(2), torch.eye(2, dtype=torch.float64)
    >>> step = torch.einsum("ijkl,kl->ij", mean_hessian(0 * V, V, problem), V)
    >>> torch.allclose(step, gradient(V, problem) - gradient(0 * V, problem), rtol=0, atol=1e-14)
    True
    """
    check_weights(A, problem, "A")
    check_weights(B, problem, "B")
    require_broadcast({"A": A.shape[:-2], "B": B.shape[:-2], "problem": problem.batch_shape})
    at, share = (torch.tensor(v).to(A) for v in np.polynomial.legendre.leggauss(require_count("nodes", nodes)))
    batch = max(A.ndim, B.ndim, len(problem.batch_shape) + 2)  # the nodes stand before it
    between = A + ((1 + at) / 2).reshape(-1, *[1] * batch) * (B - A)
    return torch.einsum("n,n...->...", share / 2, hessian(between, problem))


def hessian_vector_product(
    W: Float[Tensor, "*batch d d"], problem: AssociationProblem, V: Float[Tensor, "*batch_V d d"]
) -> Float[Tensor, "*out d d"]:
    r"""The Hessian (26) applied to a matrix ``V``, in closed form and without a ``d^2 x d^2`` matrix.

    .. math:: \nabla^2\mathcal L(W)[V] = \sum_x p(x)\; U^\top (\operatorname{diag} q - q q^\top)\, U\, V e_x\, e_x^\top,
        \qquad q = p_W(\cdot \mid x).

    ``V`` has shape (..., d, d) and broadcasts with ``W`` and the problem; ``ValueError`` where it does not.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> hessian_vector_product(torch.zeros(2, 2, dtype=torch.float64), problem, torch.eye(2, dtype=torch.float64))
    tensor([[ 0.1250, -0.1250],
            [-0.1250,  0.1250]], dtype=torch.float64)
    """
    check_weights(W, problem)
    check_weights(V, problem, "V")
    batch = require_broadcast({"W": W.shape[:-2], "V": V.shape[:-2], "problem": problem.batch_shape})
    E, p, U = problem.E, problem.p, _centred(problem.U)
    top, others = _masses(scores_of(W, E, U))
    S = scores_of(V, E, U)
    S, top = S.expand(*batch, *S.shape[-2:]), top.expand(*batch, *top.shape[-2:])
    return finite("hessian_vector_product", gradient_of(p[..., None] * _covary(top, others, S), E, U))


def sharpness(
    W: Float[Tensor, "*batch d d"], problem: AssociationProblem, *, tolerance: float = 1e-10
) -> Float[Tensor, "*out"]:
    r"""Sharpness: the largest eigenvalue of the Hessian (26), its operator norm, Figure 5 of [CSB24].

    Descent at a constant rate :math:`\eta` is stable at a minimum where it is below :math:`2/\eta`. With two
    classes it is :math:`\|u_1 - u_2\|^2\, \lambda_{\max}\bigl(\sum_x p(x)\, q_1 q_2\, e_x e_x^\top\bigr)`. With more,
    it is read off the dense matrix for ``d <= 16``, and beyond found by Lanczos iterations on the Hessian-vector
    product, in double precision, from a start that is always the same. Large batches are worked off in pieces.

    Parameters
    ----------
    W : (..., d, d)
    problem : any N, M, d
    tolerance : relative accuracy asked of the Lanczos iterations

    Raises
    ------
    ValueError
        For a matrix that does not fit the problem, and a tolerance that is not positive.
    RuntimeError
        Where the Lanczos iterations do not reach the tolerance.

    Examples
    --------
    >>> problem = AssociationProblem.orthonormal(4)
    >>> round(sharpness(torch.zeros(4, 4, dtype=torch.float64), problem).item(), 12)  # p(x) / M
    0.0625
    """
    check_weights(W, problem)
    tolerance = require_positive("tolerance", tolerance)
    N, M, d = problem.N, problem.M, problem.d
    if M == 2:
        solve, size = _largest_of_two_classes, 4 * N if d == 2 else N * d + min(N, d) ** 2
    elif d <= DENSE:
        solve, size = _largest_dense, 2 * N * (M + d**2) + 2 * d**4
    else:
        solve, size = partial(_largest_by_lanczos, tolerance=tolerance), PIECE
    parts = (W, problem.E, problem.U, problem.p[..., None])
    batch = torch.broadcast_shapes(*(X.shape[:-2] for X in parts))
    values = [solve(*piece).reshape(-1) for piece in _pieces(parts, batch, max(1, PIECE // size))]
    values = finite("sharpness", torch.cat([W.new_empty(0), *values]).reshape(batch))
    return values.expand(torch.broadcast_shapes(W.shape[:-2], problem.batch_shape))


def _pieces(parts: tuple[Tensor, ...], batch: torch.Size, size: int) -> Iterator[tuple[Tensor, ...]]:
    """``W, E, U, p`` of at most ``size`` members of the batch at a time; what has no batch is left as it is."""
    for first in range(0, batch.numel(), size):
        if batch.numel() > size:
            chosen = torch.arange(first, min(first + size, batch.numel()), device=parts[0].device)
            index = torch.unravel_index(chosen, batch)
            piece = (X if X.ndim == 2 else X.expand(*batch, *X.shape[-2:])[index] for X in parts)
        else:
            piece = parts
        W, E, U, p = piece
        yield W, E, U, p[..., 0]


# ---- one token's covariance ----


def _centred(U: Tensor) -> Tensor:
    """A part that all outputs share does not change the curvature; without it no digits are lost."""
    return U - U.mean(-2, keepdim=True)


def _masses(w: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest class (..., N, 1), and the probabilities (..., N, M) with a 0 in its place."""
    top = w.argmax(-1, keepdim=True)
    return top, torch.softmax(w, -1).scatter_(-1, top, 0.0)


def _covary(top: Tensor, others: Tensor, S: Tensor, scale: float = 1.0) -> Tensor:
    """``(diag q - q q^T) s / scale`` of each token; at the likeliest class minus the sum of the rest."""
    S = S - S.gather(-1, top)
    S = S.sub_((others * S).sum(-1, keepdim=True)).mul_(others / scale)
    return S.scatter_(-1, top, S.sum(-1, keepdim=True).neg_())


def _outer(x: Tensor, y: Tensor) -> Tensor:
    return x[..., :, None] * y[..., None, :]


def _dense(W: Tensor, E: Tensor, U: Tensor, p: Tensor) -> Tensor:
    """The Hessian (..., d, d, d, d): covariance as second moment about the likeliest output minus mean squared."""
    d, U = E.shape[-1], _centred(U)
    top, others = _masses(scores_of(W, E, U))
    best = U.expand(*top.shape[:-2], *U.shape[-2:]).take_along_dim(top, -2)
    rest, first = others.sum(-1, keepdim=True), others @ U
    cross, mean = _outer(first, best), first - rest * best
    second = (others @ _outer(U, U).flatten(-2)).unflatten(-1, (d, d))
    covariance = second - cross - cross.mT + rest[..., None] * _outer(best, best) - _outer(mean, mean)
    ikjl = (p[..., None] * covariance.flatten(-2)).mT @ _outer(E, E).flatten(-2)
    return ikjl.unflatten(-1, (d, d)).unflatten(-3, (d, d)).transpose(-3, -2)


# ---- the largest eigenvalue: of W, E, U, p ----


def _largest_dense(W: Tensor, E: Tensor, U: Tensor, p: Tensor) -> Tensor:
    H = _dense(W, E, U, p).flatten(-2).flatten(-3, -2)
    return torch.linalg.eigvalsh(finite("sharpness", H))[..., -1].clamp_min(0)


def _largest_of_two_classes(W: Tensor, E: Tensor, U: Tensor, p: Tensor) -> Tensor:
    gap = U[..., 0, :] - U[..., 1, :]
    v, c = (W.mT @ gap[..., None])[..., 0], gap.square().sum(-1)
    if E.shape[-1] == 2:
        x, y = E.unbind(-1)
        m = torch.addcmul(v[..., :1] * x, v[..., 1:], y)  # a quarter of the time of a product of such thin matrices
        products = torch.stack([x * x, y * y, x * y], -1) * p[..., None]
        a, b, off = (_two_masses(m)[..., None, :] @ products)[..., 0, :].unbind(-1)
        return c * ((a + b) / 2 + torch.hypot((a - b) / 2, off))
    weight = _two_masses((v[..., None, :] @ E.mT)[..., 0, :]) * p
    X = weight.sqrt()[..., None] * E
    gram = X @ X.mT if E.shape[-2] < E.shape[-1] else X.mT @ X  # the smaller of two with the same largest eigenvalue
    return c * torch.linalg.eigvalsh(finite("sharpness", gram))[..., -1].clamp_min(0)


def _two_masses(m: Tensor) -> Tensor:
    """``q_1 q_2`` from the margin, which is overwritten: ``t / (1 + t)^2`` with ``t = exp(-|m|)``."""
    t = m.abs_().neg_().exp_()
    return t.div_((1 + t).square_())


def _largest_by_lanczos(W: Tensor, E: Tensor, U: Tensor, p: Tensor, tolerance: float) -> Tensor:
    like, d = W, W.shape[-1]
    device = "cpu" if W.device.type == "mps" else W.device  # the iterations are in double precision
    W, E, U = (X.to(device, torch.float64).reshape(X.shape[-2:]) for X in (W, E, U))
    p, U = p.to(device, torch.float64).flatten(), _centred(U)
    top, others = _masses(scores_of(W, E, U))

    def product(v: Tensor, scale: float = 1.0) -> Tensor:
        R = _covary(top, others, scores_of(v.reshape(d, d), E, U), scale)
        return gradient_of(R.mul_(p[:, None]), E, U).flatten()

    start = _start(E, U, p, top, others)
    first = finite("sharpness", product(start))
    largest = first.abs().max()  # not the norm: a square may under- or overflow
    scale = float(largest / start.abs().max())
    if scale == 0:
        return like.new_zeros(())
    first = first / largest
    return like.new_tensor(scale * lanczos(partial(product, scale=scale), first / first.norm(), tolerance)[0])


def _start(E: Tensor, U: Tensor, p: Tensor, top: Tensor, others: Tensor) -> Tensor:
    """The best rank-one guess ``a b^T``, an eigenvector where all tokens have one covariance, and some of all else.

    ``a`` is the main direction of the mean covariance, ``b`` that of the inputs weighted by their variance along it.
    """
    q = others.scatter(-1, top, 1 - others.sum(-1, keepdim=True))
    weight, mean = p * E.square().sum(-1), q @ U
    a = torch.linalg.eigh((U.mT * (weight @ q)) @ U - (weight[:, None] * mean).mT @ mean).eigenvectors[:, -1]
    s = (U @ a).expand(others.shape)
    variance = (s * _covary(top, others, s)).sum(-1)
    b = torch.linalg.eigh((E.mT * (p * variance)) @ E).eigenvectors[:, -1]
    noise = torch.randn(E.shape[-1] ** 2, dtype=E.dtype, generator=torch.Generator().manual_seed(0)).to(E.device)
    return _outer(a, b).flatten() + 1e-3 * noise / noise.norm()


def lanczos(
    product: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, *, vector: bool = False
) -> tuple[float, Tensor | None]:
    """Largest eigenvalue of a symmetric operator that is about 1 in size, and if wanted its eigenvector of norm 1.

    ARPACK's stopping rule is relative to the eigenvalue, and absolute below 1e-11; ``RuntimeError`` where it fails.

    >>> diagonal = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    >>> round(lanczos(lambda v: diagonal * v, torch.ones_like(diagonal), 1e-9)[0], 6)
    3.0
    """
    n = len(start)

    def apply(v: object) -> object:
        return product(torch.as_tensor(v, device=start.device)).cpu().numpy()

    operator = LinearOperator((n, n), matvec=apply, dtype="float64")
    options = {"k": 1, "which": "LA", "tol": tolerance, "ncv": min(n, 20), "return_eigenvectors": vector}
    try:
        found = eigsh(operator, v0=start.cpu().numpy(), **options)
    except ArpackNoConvergence as error:
        message = f"sharpness: Lanczos iterations did not reach tolerance = {tolerance} ({error}); use a larger one"
        raise RuntimeError(message) from error
    if not vector:
        return float(found[0]), None
    return float(found[0][0]), torch.as_tensor(found[1][:, 0], device=start.device)
