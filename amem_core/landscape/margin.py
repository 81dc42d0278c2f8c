r"""The maximum-margin solution: where descent goes in direction when the data are separable."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from amem_core.landscape.sections import require_single
from amem_core.problem import AssociationProblem
from amem_core.validation import require


@dataclass(frozen=True, eq=False)
class MaxMargin:
    r"""The smallest matrix whose margins are all at least 1, and the multipliers that prove it.

    Parameters
    ----------
    W : (d, d) the matrix :math:`W_* = \sum_{x,z} \lambda_{xz}\, (u_{f^*(x)} - u_z) \otimes e_x`
    multipliers : (N, M) :math:`\lambda \ge 0`, 0 at the right class
    norm_squared : :math:`\|W_*\|_F^2 = \sum \lambda_{xz}`
    residual : largest violation of the four KKT conditions (margins, signs, stationarity, slackness), relative
    """

    W: Float[Tensor, "d d"]
    multipliers: Float[Tensor, "N M"]
    norm_squared: float
    residual: float


def max_margin(problem: AssociationProblem) -> MaxMargin:
    r"""Hard-margin solution :math:`\min \|W\|_F` subject to margins (13) of at least 1.

    Lawson and Hanson's least-distance programming: with the constraint vectors
    :math:`(u_{f^*(x)} - u_z) \otimes e_x` as the columns of ``A``, non-negative least squares on
    :math:`[A; 1^\top]\,y \approx (0, 1)` leaves the residual :math:`r`, and ``y / (1 - sum(y))`` are the
    multipliers. In double precision whatever the problem's type.

    Raises
    ------
    ValueError
        For a batch, and where no matrix gives every token a positive margin (relative to 1e-9).

    Examples
    --------
    >>> best = max_margin(AssociationProblem.two_tokens(0.5, 0.75))
    >>> round(best.norm_squared, 12)  # 2 / (c (1 - alpha)) with c = 2
    2.0
    """
    require_single(problem)
    E, U = (part.cpu().double() for part in (problem.E, problem.U))
    right = problem.targets.cpu()
    gaps = U[right][:, None] - U  # (N, M, d)
    wrong = torch.ones(problem.N, problem.M, dtype=torch.bool).scatter(1, right[:, None], False)
    rows = torch.einsum("xzr,xs->xzrs", gaps, E)[wrong].flatten(1)  # (N (M - 1), d^2)
    scale = float(rows.norm(dim=1).max())
    require(scale > 0, "problem", "embeddings that are all zero or all equal", "tokens that can be recalled")
    A = (rows / scale).T.numpy()
    y, distance = nnls(np.vstack([A, np.ones(A.shape[1])]), np.append(np.zeros(len(A)), 1.0))
    require(distance > 1e-9, "problem", "tokens that no matrix recalls together", "associations that are separable")
    dual = torch.from_numpy(y / (1 - y.sum())) / scale**2
    W = dual @ rows
    multipliers = torch.zeros(problem.N, problem.M, dtype=torch.float64)
    multipliers[wrong] = dual
    margins = rows @ W
    slack = (dual * (margins - 1)).abs().max() / dual.max()
    residual = max(float((1 - margins).max()), float(slack), abs(float(W.flatten() @ W.flatten() / dual.sum()) - 1))
    like = {"dtype": problem.dtype, "device": problem.device}
    return MaxMargin(
        W.reshape(problem.d, problem.d).to(**like), multipliers.to(**like), float(dual.sum()), max(residual, 0.0)
    )
