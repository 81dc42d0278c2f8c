r"""Curvature of the loss when only the output matrix of layer 2 is trained. Section 5.3 of [CSB24], Figure 7, top.

Letters: ``P`` loss positions, ``d`` dimension, ``N`` tokens. On fixed features the logits ``base + X W_O2^T W_U^T`` are
linear in ``W_O2``, so that with :math:`q_n` the probabilities at position ``n``

.. math::
    \nabla^2\mathcal L(W_O^2)[V]
        = \frac1P\sum_n U^\top(\operatorname{diag} q_n - q_nq_n^\top)\,U\,V x_n\, x_n^\top \succeq 0 .
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.curvature import lanczos
from amem_core.induction.fast import exact_products
from amem_core.induction.features import ROWS, ROWS_ELSEWHERE, Features
from amem_core.validation import finite, require, require_alike, require_floating, require_positive


def features_hessian_product(
    W_O2: Float[Tensor, "d d"], features: Features, V: Float[Tensor, "d d"]
) -> Float[Tensor, "d d"]:
    """The Hessian of ``features_loss_and_gradient`` at ``W_O2``, applied to a matrix ``V``; zero without positions.

    Raises
    ------
    ValueError
        For matrices that do not fit the features.

    Examples
    --------
    One position, two tokens, equal scores:

    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> features = Features(eye[:1], torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), eye)
    >>> features_hessian_product(0 * eye, features, eye).tolist()
    [[0.25, 0.0], [-0.25, 0.0]]
    """
    for name, matrix in (("W_O2", W_O2), ("V", V)):
        _require_fit(name, matrix, features)
    U, total = features.W_U, torch.zeros_like(features.W_U)
    with torch.no_grad(), exact_products(U.device, False):
        scores, turned = U @ W_O2, U @ V
        for X, base in zip(*(Y.split(_rows(U)) for Y in (features.X, features.base)), strict=True):
            q = torch.addmm(base, X, scores.T).softmax(-1)
            S = X @ turned.T
            total.addmm_((S - (q * S).sum(-1, keepdim=True)).mul_(q).T, X)
        return finite("features_hessian_product", U.T @ total / max(len(features.X), 1))


def features_sharpness(
    W_O2: Float[Tensor, "d d"], features: Features, *, tolerance: float = 1e-3
) -> tuple[float, Float[Tensor, "d d"]]:
    """Largest eigenvalue of that Hessian and its eigenvector, a (d, d) matrix of norm 1, by Lanczos iterations.

    Descent of rate ``eta`` contracts along this direction only while ``eta`` times the eigenvalue is below 2.

    Parameters
    ----------
    tolerance : relative accuracy asked of the eigenvalue

    Raises
    ------
    ValueError
        For a matrix that does not fit the features, or a tolerance that is not positive.
    RuntimeError
        Where the iterations do not reach the tolerance.

    Examples
    --------
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> features = Features(eye[:1], torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), eye)
    >>> round(features_sharpness(0 * eye, features)[0], 6)
    0.5
    """
    _require_fit("W_O2", W_O2, features)
    tolerance, d = require_positive("tolerance", tolerance), len(W_O2)

    def product(v: Tensor) -> Tensor:
        return features_hessian_product(W_O2, features, v.reshape(d, d).to(W_O2)).double().flatten()

    start = torch.from_numpy(np.random.default_rng(0).standard_normal(d * d)).to(W_O2.device)
    first = product(start)
    if d == 1:  # no iterations are needed, and ARPACK wants two dimensions
        return (first / start).item(), torch.ones_like(W_O2)
    if not first.any():  # in general position, so that the Hessian is zero
        return 0.0, (start / start.norm()).reshape(d, d).to(W_O2)
    value, V = lanczos(product, first / first.norm(), tolerance, vector=True)
    return value, V.reshape(d, d).to(W_O2)


def _require_fit(name: str, matrix: Tensor, features: Features) -> None:
    """A (d, d) matrix like the features."""
    d = features.W_U.shape[1]
    require_floating(name, matrix)
    require_alike(name, matrix, features.W_U, "features")
    require(tuple(matrix.shape) == (d, d), name, tuple(matrix.shape), f"(d, d) with d = {d}")


def _rows(like: Tensor) -> int:
    """Rows of features that are worked on together."""
    return ROWS.get(like.device.type, ROWS_ELSEWHERE)
