r"""Two-dimensional sections of the loss and of the 0-1 loss: what level lines are drawn from.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension; ``c`` is :math:`\|u_1 - u_2\|^2`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.landscape.reading import planar_gap
from amem_core.memory import loss, zero_one_loss
from amem_core.problem import AssociationProblem
from amem_core.validation import require, require_alike, require_floating


@dataclass(frozen=True, eq=False)
class Section:
    """Loss and 0-1 loss on a rectangle of matrices ``origin + a_i D_1 + b_j D_2``; row ``j``, column ``i``.

    Parameters
    ----------
    a, b : (A,) and (B,) coordinates
    loss : (B, A) cross-entropy (2), in nats
    zero_one_loss : (B, A) total frequency of the tokens not recalled (ties are errors)
    """

    a: Float[Tensor, " A"]
    b: Float[Tensor, " B"]
    loss: Float[Tensor, "B A"]
    zero_one_loss: Float[Tensor, "B A"]


def planar_directions(problem: AssociationProblem) -> Float[Tensor, "2 d d"]:
    r"""Two matrices that span what two classes can read in two dimensions, Section 4.3 of [CSB24].

    :math:`D_i = (u_1 - u_2) \otimes f_i / c` with :math:`f_i` the canonical basis, so that
    :math:`W = \gamma_1 D_1 + \gamma_2 D_2` has :math:`(u_1 - u_2)^\top W f_i = \gamma_i`. Eq. (21) of
    print has the opposite sign. Raises ``ValueError`` unless ``M = d = 2``, for a batch, and for equal outputs.

    >>> D = planar_directions(AssociationProblem.two_tokens(0.5, 0.75))
    >>> (D[0].T @ torch.tensor([1.0, -1.0], dtype=torch.float64)).tolist()
    [1.0, 0.0]
    """
    require_single(problem)
    gap, c = planar_gap(problem)
    return torch.einsum("r,is->irs", gap / c, torch.eye(2, dtype=problem.dtype, device=problem.device))


def section(
    problem: AssociationProblem, directions: Tensor, a: Tensor, b: Tensor, origin: Tensor | None = None
) -> Section:
    r"""Loss and 0-1 loss on the plane ``origin + a D_1 + b D_2``: what level lines are drawn from.

    Parameters
    ----------
    problem : one problem, any N, M, d
    directions : (2, d, d) the matrices ``D_1``, ``D_2``
    a, b : (A,) and (B,) coordinates
    origin : (d, d), zero by default

    Raises
    ------
    ValueError
        For a batch of problems, and directions, coordinates or an origin of the wrong shape or type.

    Examples
    --------
    >>> problem, line = AssociationProblem.two_tokens(0.5, 0.75), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    >>> section(problem, planar_directions(problem), line, line).zero_one_loss[1].tolist()  # b = 0
    [0.75, 1.0, 0.25]
    """
    origin = checked_origin(problem, directions, a, b, origin)
    rows = []
    for height in b:  # one row at a time: memory A d^2
        W = origin + a[:, None, None] * directions[0] + height * directions[1]
        rows.append((loss(W, problem), zero_one_loss(W, problem)))
    values, errors = (torch.stack(part) for part in zip(*rows, strict=True))
    return Section(a, b, values, errors)


def checked_origin(
    problem: AssociationProblem, directions: Tensor, a: Tensor, b: Tensor, origin: Tensor | None
) -> Float[Tensor, "d d"]:
    """The origin of a plane, zero by default; ``ValueError`` where problem, directions or coordinates do not fit."""
    require_single(problem)
    d = problem.d
    origin = torch.zeros(d, d, dtype=problem.dtype, device=problem.device) if origin is None else origin
    shapes = {"directions": (directions, (2, d, d)), "a": (a, None), "b": (b, None), "origin": (origin, (d, d))}
    for name, (value, shape) in shapes.items():
        require_floating(name, value)
        require_alike(name, value, problem.E, "the problem")
        good = value.shape == shape if shape else value.ndim == 1 and len(value) > 0
        require(good, name, tuple(value.shape), str(shape or "a list of one value or more"))
    return origin


def require_single(problem: AssociationProblem) -> None:
    """Raise ``ValueError`` for a batch of problems."""
    require(not problem.batch_shape, "problem", f"batch {tuple(problem.batch_shape)}", "one problem")
