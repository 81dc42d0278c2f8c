r"""Whether one matrix can recall every token: a linear programme."""

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from amem_core.landscape.sections import require_single
from amem_core.problem import AssociationProblem

# entries of the matrix at most, for rows of length 1: a margin below about its inverse counts as none
REACH = 1e8
# rows this short relative to their input and the outputs are zero but for rounding
ZERO = 1e-12


def separable(problem: AssociationProblem) -> bool:
    r"""Whether some matrix recalls all tokens: are margins (13) of at least 1 feasible?

    The linear programme :math:`\langle W, (u_{f^*(x)} - u_z) \otimes e_x \rangle \ge 1` for all ``x`` and
    :math:`z \neq f^*(x)`, with the rows scaled to length 1 and the entries of ``W`` at most 1e8: what could
    only be separated by a relative margin below about 1e-8 counts as not separable, and a row shorter than
    1e-12 of its input times the outputs as zero. Frequencies play no role. ``W`` acts between the spans of the
    inputs and of the outputs, at most ``min(N, d) min(M, d)`` unknowns; a positive answer is checked on the
    solution. In double precision whatever the problem's type.

    Raises
    ------
    ValueError
        For a batch of problems.
    RuntimeError
        Where the solver comes to no answer.

    Examples
    --------
    >>> separable(AssociationProblem.orthonormal(3))
    True
    >>> separable(AssociationProblem.planar(torch.tensor([0.0, 0.0]), torch.tensor([0, 1])))  # one input, two answers
    False
    """
    require_single(problem)
    rows = _constraints(problem)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if lengths.min() <= ZERO:
        return False  # a token that is zero, or a class with the same output as another's
    rows = rows / lengths
    n = rows.shape[1]
    result = linprog(np.zeros(n), A_ub=-rows, b_ub=-np.ones(len(rows)), bounds=(-REACH, REACH), method="highs")
    if result.status == 2:
        return False
    if result.status != 0 or not (rows @ result.x > 0).all():
        raise RuntimeError(f"separable: the solver came to no answer ({result.message})")
    return True


def _constraints(problem: AssociationProblem) -> np.ndarray:
    """``(u_{f*(x)} - u_z) (x) e_x`` for every token and wrong class, in coordinates of the two spans."""
    E, U = (part.cpu().double() for part in (problem.E, problem.U))
    right = problem.targets.cpu()
    U = U - U.mean(0)
    lengths = E.abs().amax(1, keepdim=True)  # of each input: a common scale could underflow
    E = torch.where(lengths > 0, E / lengths, 0.0)
    E, U = _coordinates(E), _coordinates(U / U.abs().max().clamp_min(1e-300))
    gaps = U[right][:, None] - U  # (N, M, r)
    wrong = torch.ones(gaps.shape[:2], dtype=torch.bool).scatter(1, right[:, None], False)
    return torch.einsum("xzr,xs->xzrs", gaps, E)[wrong].flatten(1).numpy()


def _coordinates(X: Tensor) -> Tensor:
    """The rows of ``X`` in an orthonormal basis of a space of ``min(X.shape)`` dimensions that holds them."""
    return X if X.shape[0] >= X.shape[1] else torch.linalg.qr(X.mT).R.mT
