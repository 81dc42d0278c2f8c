"""The sharpness on a two-dimensional section: what the level lines of Figure 5 are drawn from."""

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.curvature import sharpness
from amem_core.landscape.sections import checked_origin
from amem_core.problem import AssociationProblem

# numbers in the matrices of the rows taken together: 8 MiB in float64
ROWS = 2**20


def sharpness_map(
    problem: AssociationProblem, directions: Tensor, a: Tensor, b: Tensor, origin: Tensor | None = None
) -> Float[Tensor, "B A"]:
    r"""Sharpness on the plane ``origin + a D_1 + b D_2``, Figure 5 of [CSB24]; row ``j``, column ``i`` as ``section``.

    Takes, and refuses, the arguments of ``section``.

    >>> from amem_core.landscape import planar_directions
    >>> problem, line = AssociationProblem.two_tokens(0.0, 0.5), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    >>> sharpness_map(problem, planar_directions(problem), line, line)[1, 1].item()  # c p / 4
    0.25
    """
    origin = checked_origin(problem, directions, a, b, origin)
    columns = origin + a[:, None, None] * directions[0]
    count = max(1, ROWS // columns.numel())
    rows = [sharpness(columns + part[:, None, None, None] * directions[1], problem) for part in b.split(count)]
    return torch.cat(rows)
