r"""What two classes read of a matrix: :math:`v = W^\top (u_1 - u_2)`, and the smallest matrix with a given ``v``.

With two classes every margin is :math:`\pm\langle v, e_x\rangle`. ``c`` is :math:`\|u_1 - u_2\|^2`.
"""

from jaxtyping import Float
from torch import Tensor

from amem_core.memory import check_weights
from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_alike, require_broadcast, require_floating


def reading(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out d"]:
    r"""The vector :math:`v = W^\top (u_1 - u_2)` that decides every margin of two classes, Section 4.3 of [CSB24].

    Raises ``ValueError`` unless ``M = 2``, for equal outputs, and for a matrix that does not fit.

    >>> problem = AssociationProblem.two_tokens(0.5, 0.75)
    >>> reading(2 * problem.U, problem).tolist()  # W = 2 Id
    [2.0, -2.0]
    """
    check_weights(W, problem)
    gap, _ = output_gap(problem)
    return finite("reading", (W.mT @ gap[..., None])[..., 0])


def matrix_of_reading(v: Float[Tensor, "*batch d"], problem: AssociationProblem) -> Float[Tensor, "*out d d"]:
    r"""The smallest matrix with :math:`W^\top (u_1 - u_2) = v`, which is :math:`(u_1 - u_2)\,v^\top / c`.

    Raises ``ValueError`` unless ``M = 2``, for equal outputs, and for a vector that does not fit.

    >>> problem = AssociationProblem.two_tokens(0.5, 0.75)
    >>> matrix_of_reading(problem.U.sum(0), problem).tolist()  # v = (1, 1)
    [[0.5, 0.5], [-0.5, -0.5]]
    """
    require_floating("v", v)
    require_alike("v", v, problem.E, "the problem")
    require(v.ndim >= 1 and v.shape[-1] == problem.d, "v", tuple(v.shape), f"(..., d) with d = {problem.d}")
    require_broadcast({"v": v.shape[:-1], "problem": problem.batch_shape})
    return finite("matrix_of_reading", spread(v, *output_gap(problem)))


def output_gap(problem: AssociationProblem) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
    """``u_1 - u_2`` and its squared length ``c``; ``ValueError`` unless ``M = 2`` and the outputs differ."""
    require(problem.M == 2, "problem", f"M = {problem.M}", "M = 2")
    gap = problem.U[..., 0, :] - problem.U[..., 1, :]
    c = gap.square().sum(-1)
    require(bool((c > 0).all()), "problem", "two equal output embeddings", "u_1 != u_2")
    return gap, c


def planar_gap(problem: AssociationProblem) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """``output_gap``; ``ValueError`` unless ``M = d = 2``."""
    require((problem.M, problem.d) == (2, 2), "problem", f"M = {problem.M}, d = {problem.d}", "M = d = 2")
    return output_gap(problem)


def spread(v: Tensor, gap: Tensor, c: Tensor) -> Tensor:
    """``gap v^T / c``, unchecked."""
    return gap[..., :, None] * (v / c[..., None])[..., None, :]
