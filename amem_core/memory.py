r"""One associative memory: scores, losses, margins and gradient, each called as ``f(W, problem)``.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension. The score of class ``j`` for token ``x``
is :math:`w_{xj} = u_j^\top W e_x`, with ``W`` of shape ``(..., d, d)`` and any leading batch
dimensions, which broadcast with those of the problem.

What is small is computed as such, never as ``1 - (1 - small)``: losses and residuals keep their
relative precision until they underflow (margins of about 700 in float64, 87 in float32).
"""

from collections.abc import Callable
from functools import wraps

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_alike, require_broadcast, require_floating


def check_weights(W: Tensor, problem: AssociationProblem, argument: str = "W") -> None:
    """Raise ``ValueError`` unless ``W`` is a finite ``(..., d, d)`` tensor that fits the problem."""
    require_floating(argument, W)
    d = problem.d
    good = W.ndim >= 2 and W.shape[-2:] == (d, d)
    require(good, argument, tuple(W.shape), f"(..., {d}, {d}) for embeddings of dimension {d}")
    require_alike(argument, W, problem.E, "the problem")
    require_broadcast({argument: W.shape[:-2], "problem": problem.batch_shape})


def _of_weights(function: Callable) -> Callable:
    @wraps(function)
    def checked(W: Tensor, problem: AssociationProblem) -> Tensor:
        check_weights(W, problem)
        result = function(W, problem)
        return finite(function.__name__, result) if result.is_floating_point() else result

    return checked


@_of_weights
def scores(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out N M"]:
    r"""Scores :math:`w_{xj} = u_j^\top W e_x`, Eqs. (1) and (10) of [CSB24]: the particles.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> scores(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), problem)
    tensor([[1., 3.],
            [2., 4.]], dtype=torch.float64)
    """
    return scores_of(W, problem.E, problem.U)


@_of_weights
def log_probabilities(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out N M"]:
    r""":math:`\log p_W(y \mid x)`, Eq. (8) of [CSB24]; in nats.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> log_probabilities(torch.zeros(2, 2, dtype=torch.float64), problem).exp()
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    w, _ = align(scores_of(W, problem.E, problem.U), problem.targets)
    top = w.argmax(-1, keepdim=True)
    # at the likeliest class as the loss of a token that has it as its target: precise when it is close to 0
    return torch.log_softmax(w, -1).scatter(-1, top, -token_losses(w, top[..., 0])[..., None])


@_of_weights
def loss(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out"]:
    r"""Cross-entropy :math:`\mathcal L(W) = \sum_x p(x)\,\ell(W; x, f^*(x))`, Eqs. (2) and (3) of [CSB24]; in nats.

    >>> problem = AssociationProblem.orthonormal(4)
    >>> round(loss(torch.zeros(4, 4, dtype=torch.float64), problem).item(), 6)  # log 4
    1.386294
    """
    return mean_loss(scores_of(W, problem.E, problem.U), problem.targets, problem.p)


@_of_weights
def margins(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out N M"]:
    r"""Margins :math:`m_i(x) = w_{x f^*(x)} - w_{xi}` of every class, Eq. (13) of [CSB24]; 0 at ``i = f*(x)``.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> margins(torch.eye(2, dtype=torch.float64), problem)
    tensor([[0., 1.],
            [1., 0.]], dtype=torch.float64)
    """
    return margins_of(scores_of(W, problem.E, problem.U), problem.targets)


@_of_weights
def tightest_margin(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out N"]:
    r"""Margin over the best wrong class, :math:`\min_{i \neq f^*(x)} m_i(x)`, Eq. (22) of [CSB24].

    A token is recalled when it is positive.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> tightest_margin(torch.diag(torch.tensor([3.0, -1.0], dtype=torch.float64)), problem)
    tensor([ 3., -1.], dtype=torch.float64)
    """
    return tightest_of(scores_of(W, problem.E, problem.U), problem.targets)


@_of_weights
def zero_one_loss(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out"]:
    r"""0-1 loss: total frequency of the tokens that are not recalled, Section 1 of [CSB24].

    A token counts as recalled when its tightest margin is positive; a tie is an error, so that
    ``W = 0`` recalls nothing.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> zero_one_loss(torch.zeros(2, 2, dtype=torch.float64), problem).item()
    1.0
    """
    return error_of(scores_of(W, problem.E, problem.U), problem.targets, problem.p)


@_of_weights
def predictions(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Int[Tensor, "*out N"]:
    r"""The recalled class :math:`f_W(x) = \arg\max_y u_y^\top W e_x`, Eq. (1) of [CSB24]; ties go to the lowest class.

    >>> problem = AssociationProblem.orthonormal(3)
    >>> predictions(torch.eye(3, dtype=torch.float64), problem).tolist()
    [0, 1, 2]
    """
    return scores_of(W, problem.E, problem.U).argmax(-1)


@_of_weights
def gradient(W: Float[Tensor, "*batch d d"], problem: AssociationProblem) -> Float[Tensor, "*out d d"]:
    r"""Gradient of the loss, Eqs. (9) and (23) of [CSB24], in closed form.

    .. math:: \nabla\mathcal L(W) = \sum_x p(x) \sum_z p_W(z \mid x)\,(u_z - u_{f^*(x)}) \otimes e_x.

    >>> problem = AssociationProblem.orthonormal(2)
    >>> gradient(torch.zeros(2, 2, dtype=torch.float64), problem)
    tensor([[-0.2500,  0.2500],
            [ 0.2500, -0.2500]], dtype=torch.float64)
    """
    w = scores_of(W, problem.E, problem.U)
    R = residuals(w, problem.targets)
    return gradient_of(R * problem.p[..., None], problem.E, problem.U)


# ---- the same on scores, without checks: what the dynamics iterate ----


def scores_of(W: Tensor, E: Tensor, U: Tensor) -> Tensor:
    """Scores (..., N, M) in the cheaper of the two orders of multiplication."""
    if E.shape[-2] <= U.shape[-2]:
        return (E @ W.mT) @ U.mT  # d²N + dNM
    return E @ (U @ W).mT  # d²M + dNM


def gradient_of(coefficients: Tensor, E: Tensor, U: Tensor) -> Tensor:
    """``sum_xj coefficients[x, j] u_j e_x^T``, shape (..., d, d), in the cheaper order."""
    if E.shape[-2] <= U.shape[-2]:
        return (coefficients @ U).mT @ E  # dNM + d²N
    return U.mT @ (coefficients.mT @ E)  # dNM + d²M


def align(w: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (..., N, M) and the column (..., N, 1) of target classes, in one common batch shape."""
    batch = torch.broadcast_shapes(w.shape[:-1], targets.shape)
    return w.expand(*batch, w.shape[-1]), targets[..., None].expand(*batch, 1)


def residuals(w: Tensor, targets: Tensor, out: Tensor | None = None) -> Tensor:
    """``softmax(w) - onehot(targets)``; at the target computed as minus the mass of the others.

    With ``out`` nothing is allocated; without, the result can be differentiated.
    """
    w, at_target = align(w, targets)
    if out is None:
        R = torch.softmax(w, -1).scatter(-1, at_target, 0.0)
        return R.scatter(-1, at_target, -R.sum(-1, keepdim=True))
    R = _softmax_into(w, out).scatter_(-1, at_target, 0.0)
    return R.scatter_(-1, at_target, R.sum(-1, keepdim=True).neg_())


def _softmax_into(w: Tensor, out: Tensor) -> Tensor:
    if w.shape[-1] >= 128:
        return torch.softmax(w, -1, out=out)
    out = torch.sub(w, w.amax(-1, keepdim=True), out=out).exp_()  # torch.softmax takes twice as long on short rows
    return out.div_(out.sum(-1, keepdim=True))


def margins_of(w: Tensor, targets: Tensor) -> Tensor:
    """Margins (..., N, M) from scores."""
    w, at_target = align(w, targets)
    return w.gather(-1, at_target) - w


def tightest_of(w: Tensor, targets: Tensor) -> Tensor:
    """Tightest margins (..., N) from scores."""
    w, at_target = align(w, targets)
    best_wrong = w.scatter(-1, at_target, -torch.inf).amax(-1)
    return w.gather(-1, at_target)[..., 0] - best_wrong


def token_losses(w: Tensor, targets: Tensor) -> Tensor:
    """Loss of each token, ``log(1 + sum_{i != y} exp(-m_i))``, shape (..., N)."""
    w, at_target = align(w, targets)
    others = w - w.gather(-1, at_target)
    z = others.scatter_(-1, at_target, -torch.inf).logsumexp(-1)
    return torch.logaddexp(z, torch.zeros_like(z))


def mean_loss(w: Tensor, targets: Tensor, p: Tensor) -> Tensor:
    """Cross-entropy from scores, averaged over tokens with frequencies ``p``."""
    return (p * token_losses(w, targets)).sum(-1)


def error_of(w: Tensor, targets: Tensor, p: Tensor) -> Tensor:
    """0-1 loss from scores."""
    return (p * (tightest_of(w, targets) <= 0)).sum(-1)
