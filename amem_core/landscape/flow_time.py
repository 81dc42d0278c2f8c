"""When the flow first recalls everything: the limit of rate times steps for small rates."""

import math

import torch
from scipy.optimize import brentq

from amem_core.dynamics import gradient_flow
from amem_core.landscape.sections import require_single
from amem_core.problem import AssociationProblem
from amem_core.validation import require, require_positive

# times at which the flow is looked at
LOOKS = 100


def flow_hitting_time(problem: AssociationProblem, *, earliest: float = 1e-2, latest: float = 1e5) -> float:
    r"""Time at which gradient flow from ``W_0 = 0`` first has all margins positive, to ``1e-6``.

    Descent at a small rate :math:`\eta` needs about this time over :math:`\eta` steps. The flow is looked at 100
    times, in equal ratios from ``earliest`` to ``latest``, and the least margin is brought to zero between the last
    time at which a token is not recalled and the first at which all are. What comes and goes between two looks is
    not seen.

    Parameters
    ----------
    problem : one problem, any N, M, d
    earliest, latest : where to look

    Returns
    -------
    time : 0 where all are recalled at ``earliest``, infinite where they are not at any time looked at

    Raises
    ------
    ValueError
        For a batch of problems, and times that are not increasing from above 0.

    Examples
    --------
    >>> round(flow_hitting_time(AssociationProblem.two_tokens(0.5, 0.9)), 4)
    16.5933
    """
    require_single(problem)
    earliest, latest = require_positive("earliest", earliest), require_positive("latest", latest)
    require(earliest < latest, "latest", latest, f"more than earliest = {earliest}")
    times = torch.logspace(math.log10(earliest), math.log10(latest), LOOKS, dtype=torch.float64)

    def least_margin(at: torch.Tensor) -> torch.Tensor:
        return gradient_flow(problem, times=at, tolerance=1e-9).tightest_margin.amin(-1)

    perfect = (least_margin(times) > 0).nonzero()
    if not len(perfect):
        return math.inf
    first = int(perfect[0])
    if first == 0:
        return 0.0
    before, after = times[first - 1].item(), times[first].item()
    return brentq(lambda s: float(least_margin(torch.tensor([s], dtype=torch.float64))), before, after, xtol=1e-6)
