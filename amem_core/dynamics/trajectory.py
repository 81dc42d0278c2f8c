"""What a dynamics returns: the recorded states, and on demand everything read off them."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.memory import error_of, gradient_of, margins_of, mean_loss, scores_of, tightest_of
from amem_core.problem import AssociationProblem
from amem_core.validation import finite


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States recorded at ``T`` times; the leading axis of every tensor is time.

    One of ``C`` and ``weights`` is stored, whichever the dynamics moved; the rest is computed
    when asked for and kept, or refused with an ``OverflowError`` where it is not finite.

    Parameters
    ----------
    problem : the associations being stored
    times : (T,) steps of a descent, or times of a flow; float64
    W0 : (..., d, d) the start
    C : (T, ..., N, M) accumulated coefficients, ``W_t = W_0 + U^T C_t^T E``; or ``None``
    weights : (T, ..., d, d) the matrices themselves; or ``None``
    normalised : whether the scores are read through a layer normalisation of ``W e_x``
    """

    problem: AssociationProblem
    times: Float[Tensor, " T"]
    W0: Float[Tensor, "*batch_0 d d"]
    C: Float[Tensor, "T *batch_C N M"] | None = None
    weights: Float[Tensor, "T *batch_W d d"] | None = None
    normalised: bool = False

    @cached_property
    def W(self) -> Float[Tensor, "T *batch d d"]:
        """The matrices ``W_t``, shape (T, ..., d, d)."""
        if self.weights is not None:
            return self.weights
        return finite("W", self.W0 + gradient_of(self.C, self.problem.E, self.problem.U))

    @cached_property
    def particles(self) -> Float[Tensor, "T *batch N M"]:
        r"""Scores :math:`w_{xj}(t)`, Eq. (10), shape (T, ..., N, M)."""
        E, U = self.problem.E, self.problem.U
        if self.normalised:
            w = torch.nn.functional.layer_norm(E @ self.weights.mT, (E.shape[-1],)) @ U.mT
        elif self.C is None:
            w = scores_of(self.weights, E, U)
        else:
            # the rows of C sum to zero: summing U first cancels what is common to all outputs
            w = scores_of(self.W0, E, U) + (E @ E.mT) @ (self.C @ U) @ U.mT
        return finite("particles", w)

    @cached_property
    def loss(self) -> Float[Tensor, "T *batch"]:
        """Cross-entropy (2) at the recorded times, in nats, shape (T, ...)."""
        return finite("loss", mean_loss(self.particles, self.problem.targets, self.problem.p))

    @cached_property
    def zero_one_loss(self) -> Float[Tensor, "T *batch"]:
        """Total frequency of the tokens not recalled (ties are errors), shape (T, ...)."""
        return error_of(self.particles, self.problem.targets, self.problem.p)

    @cached_property
    def accuracy(self) -> Float[Tensor, "T *batch"]:
        """Total frequency of the tokens recalled: one minus the 0-1 loss, shape (T, ...)."""
        return (self.problem.p * (self.tightest_margin > 0)).sum(-1)

    @cached_property
    def margins(self) -> Float[Tensor, "T *batch N M"]:
        """Margins (13) over every class, shape (T, ..., N, M)."""
        return finite("margins", margins_of(self.particles, self.problem.targets))

    @cached_property
    def tightest_margin(self) -> Float[Tensor, "T *batch N"]:
        """Margins (22) over the best wrong class, shape (T, ..., N)."""
        return finite("tightest_margin", tightest_of(self.particles, self.problem.targets))

    def __repr__(self) -> str:
        shape = f"N={self.problem.N}, M={self.problem.M}, d={self.problem.d}"
        return f"Trajectory({len(self.times)} times from {self.times[0]:g} to {self.times[-1]:g}, {shape})"
