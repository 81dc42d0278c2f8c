r"""Outer-product memories: what they recall, without any training.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension. :math:`W = \sum_x u_{f^*(x)} \otimes e_x` writes
each association once; reading it back mixes the wanted score with crosstalk.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from amem_core.problem import AssociationProblem
from amem_core.validation import require, require_count, require_floating


def outer_products(problem: AssociationProblem) -> Float[Tensor, "*batch d d"]:
    r""":math:`W = \sum_x u_{f^*(x)} \otimes e_x`, every association written once with the same weight.

    >>> from amem_core import predictions
    >>> problem = AssociationProblem.orthonormal(3)
    >>> predictions(outer_products(problem), problem).tolist()
    [0, 1, 2]
    """
    batch, N, d = problem.batch_shape, problem.N, problem.d
    U = problem.U.expand(*batch, problem.M, d)
    rows = problem.targets.expand(*batch, N)[..., None].expand(*batch, N, d)
    return U.gather(-2, rows).mT @ problem.E


def score_variance(K: Tensor, N: int, d: int, kappa: float) -> tuple[Tensor, Tensor]:
    r"""Variance of the scores of ``outer_products`` under random embeddings: right class, wrong class.

    The score of the right class has mean 1, of a wrong class 0; chapter 1 derives, for embeddings
    that are independent, symmetric, with :math:`\mathbb E\,ee^\top = \mathrm{Id}/d` and
    :math:`\kappa = \mathbb E|e|^4`,

    .. math:: (\kappa^2 - 1) + \frac{\kappa}{d}(K - 1) + \frac{N - K}{d^2}
        \quad\text{and}\quad \frac{\kappa}{d}(K + 1) + \frac{N - K - 1}{d^2}.

    Parameters
    ----------
    K : (...) number of tokens of the class
    N, d : number of tokens and dimension
    kappa : 1 on the unit sphere, ``1 + 2/d`` for N(0, 1/d) entries

    Examples
    --------
    >>> right, wrong = score_variance(torch.tensor(1.0), 1, 10, 1.0)  # one memory, unit vectors
    >>> right.item(), round(score_variance(torch.tensor(0.0), 3, 50, 1.04)[1].item(), 6)
    (0.0, 0.0216)
    """
    right = (kappa**2 - 1) + kappa / d * (K - 1) + (N - K) / d**2
    wrong = kappa / d * (K + 1) + (N - K - 1) / d**2
    return right, wrong


def predicted_density(
    targets: Int[Tensor, " N"], M: int, d: int, grid: Float[Tensor, " G"]
) -> tuple[Float[Tensor, " G"], Float[Tensor, " G"]]:
    """Density of the scores of right and of wrong classes on a grid, each score normal, on the unit sphere.

    Mixtures over tokens and classes of normals with the means and variances of ``score_variance`` (variances
    of at least 1e-6, so that the density is finite). Errors as in ``predicted_recall``.

    >>> right, wrong = predicted_density(torch.arange(63), 63, 32, torch.linspace(-4, 5, 901, dtype=torch.float64))
    >>> round(right.sum().item() * 0.01, 3), round(wrong.sum().item() * 0.01, 3)
    (1.0, 1.0)
    """
    _check(targets, M, d)
    counts = torch.bincount(targets, minlength=M).double()
    right, wrong = (v.clamp(min=1e-6).sqrt() for v in score_variance(counts, len(targets), d, 1.0))

    def mixture(mean: float, sigma: Tensor, weight: Tensor) -> Tensor:
        normal = torch.exp(-(((grid[:, None] - mean) / sigma) ** 2) / 2) / (sigma * (2 * torch.pi) ** 0.5)
        return normal @ (weight / weight.sum())

    return mixture(1.0, right, counts), mixture(0.0, wrong, len(targets) - counts)


def predicted_recall(targets: Int[Tensor, " N"], M: int, d: int) -> Float[Tensor, " N"]:
    """Probability that ``outer_products`` recalls each token, for embeddings on the unit sphere.

    From the exact means and variances alone: scores are treated as independent and normal, and
    the mean over the right score is taken by Gauss-Hermite quadrature.

    Raises
    ------
    ValueError
        For targets outside ``0 .. M-1`` or sizes below 1 (``M``: below 2).

    Examples
    --------
    >>> predicted_recall(torch.arange(10), 10, 100000).min().item() > 0.999
    True
    """
    _check(targets, M, d)
    counts, classes = torch.bincount(targets, minlength=M).double(), torch.arange(M)
    right, wrong = (v.clamp(min=0).sqrt() for v in score_variance(counts, len(targets), d, 1.0))
    nodes, mass = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(60))
    signal = 1 + right[:, None] * nodes
    # a class without crosstalk scores 0: the floor leaves the decision to the sign of the signal
    beaten = torch.special.log_ndtr(signal[..., None] / wrong.clamp(min=1e-12))
    beaten[classes, :, classes] = 0.0
    by_class = beaten.sum(-1).exp() @ (mass / mass.sum())
    return by_class[targets]


def weighted_score_deviations(
    weights: Float[Tensor, " N"], tokens: Int[Tensor, " R"], d: int
) -> tuple[Float[Tensor, "R 1"], Float[Tensor, "R N"]]:
    r"""Standard deviations of the scores of :math:`W = \sum_x q(x)\,u_x \otimes e_x`, embeddings on the unit sphere.

    The score of the right class has mean :math:`q(x)`, of another one 0; with :math:`S = \sum_a q(a)^2` the variances
    are (chapter 10)

    .. math:: \frac{S - q(x)^2}{d^2} \quad\text{and}\quad
        \frac{q(x)^2 + q(j)^2}{d} + \frac{S - q(x)^2 - q(j)^2}{d^2} .

    Parameters
    ----------
    weights : (N,) the ``q(x)``, none negative, one positive; the frequencies for one step of descent from zero
    tokens : (R,) which tokens
    d : dimension

    Returns
    -------
    right, wrong : (R, 1) and (R, N), of the right score and of the score of every class as a wrong one

    Raises
    ------
    ValueError
        For weights or tokens that are none, and a dimension below 1.

    Examples
    --------
    >>> right, wrong = weighted_score_deviations(torch.ones(3, dtype=torch.float64), torch.tensor([0]), 50)
    >>> round(right.item() ** 2, 6), round(wrong[0, 1].item() ** 2, 6)  # those of score_variance
    (0.0008, 0.0404)
    """
    _check_weights(weights, tokens, d)
    own, S = weights[tokens][:, None], (weights**2).sum()
    wrong = (own**2 + weights**2) / d + (S - own**2 - weights**2) / d**2
    return ((S - own**2) / d**2).sqrt(), wrong.sqrt()


def predicted_weighted_recall(weights: Float[Tensor, " N"], tokens: Int[Tensor, " R"], d: int) -> Float[Tensor, " R"]:
    r"""Probability that :math:`W = \sum_x q(x)\,u_x \otimes e_x` recalls these tokens, embeddings on the unit sphere.

    As ``predicted_recall``, with the deviations of ``weighted_score_deviations``, whose arguments it takes and refuses.
    Needs the memory of 40 R N numbers.

    >>> q = torch.tensor([1.0, 0.5, 0.01], dtype=torch.float64)
    >>> [round(v, 2) for v in predicted_weighted_recall(q, torch.arange(3), 40).tolist()]
    [1.0, 1.0, 0.29]
    """
    right, wrong = weighted_score_deviations(weights, tokens, d)
    nodes, mass = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(40))
    signal = weights[tokens][:, None] + right * nodes
    beaten = torch.special.log_ndtr(signal[:, :, None] / wrong[:, None, :])
    beaten[torch.arange(len(tokens)), :, tokens] = 0.0
    return beaten.sum(-1).exp() @ (mass / mass.sum())


def _check_weights(weights: Tensor, tokens: Tensor, d: int) -> None:
    require_floating("weights", weights)
    require(weights.dtype == torch.float64, "weights", weights.dtype, "torch.float64")
    good = weights.ndim == 1 and len(weights) >= 2 and bool((weights >= 0).all() and (weights > 0).any())
    require(good, "weights", weights, "(N,), N >= 2, none negative, one positive")
    require_count("d", d)
    integers = isinstance(tokens, Tensor) and tokens.ndim == 1 and tokens.dtype == torch.int64
    require(integers, "tokens", tokens, "whole numbers (R,)")
    inside = bool(((tokens >= 0) & (tokens < len(weights))).all())
    require(inside, "tokens", tokens.tolist(), f"each from 0 to N-1 = {len(weights) - 1}")


def _check(targets: Tensor, M: int, d: int) -> None:
    require_count("M", M, least=2)
    require_count("d", d)
    inside = len(targets) > 0 and bool(((targets >= 0) & (targets < M)).all())
    require(inside, "targets", targets.tolist(), f"at least one value, each from 0 to M-1 = {M - 1}")
