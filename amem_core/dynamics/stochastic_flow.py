"""Stochastic gradient flow, Eq. (6) of [CSB24], by the Euler-Maruyama scheme."""

from dataclasses import replace

from torch import Tensor

from amem_core.dynamics.loop import check_run, iterate, normal, start
from amem_core.dynamics.spaces import Embeddings, open_space
from amem_core.dynamics.trajectory import Trajectory
from amem_core.problem import AssociationProblem, Seed
from amem_core.validation import make_generator, require, require_positive


def stochastic_gradient_flow(
    problem: AssociationProblem,
    W0: Tensor | None = None,
    *,
    duration: float,
    steps: int,
    noise: str = "minibatch",
    sigma: float,
    seed: Seed,
    record_every: int = 1,
    progress: bool = True,
) -> Trajectory:
    r"""Stochastic gradient flow :math:`dW = -\nabla\mathcal L(W)\,dt + \sigma\,d\mathcal E`, Eq. (6) of [CSB24].

    ``noise="minibatch"``: the increments have covariance :math:`\sigma^2\,\Sigma(W)\,dt`, where
    :math:`\Sigma(W)` is the covariance of the gradient of one token drawn from ``p``. With
    :math:`\sigma^2 = \eta/B` this is the diffusion that stochastic descent with rate
    :math:`\eta` and batch ``B`` follows to first order. ``noise="isotropic"``: a full matrix
    Brownian motion, covariance :math:`\sigma^2\,\mathrm{Id}\,dt` on the entries of ``W``; it
    leaves the span of the gradients.

    Parameters
    ----------
    problem, W0 : the associations and the start (zero by default), any batch shape
    duration : time to integrate, cut into ``steps`` equal Euler-Maruyama steps (strong order 1/2
        in the step for ``"minibatch"``, order 1 for ``"isotropic"``)
    noise : ``"minibatch"`` or ``"isotropic"``
    sigma : amplitude, at least 0; units of one over the square root of time
    seed : an integer or a ``torch.Generator``
    record_every : the states after ``0, k, 2k, ...`` steps and the last one are recorded

    Raises
    ------
    ValueError
        For a duration, amplitude or count out of range, and an unknown noise.

    Examples
    --------
    >>> problem = AssociationProblem.orthonormal(3)
    >>> run = stochastic_gradient_flow(problem, duration=2.0, steps=20, sigma=0.1, seed=0)
    >>> run.times[-1].item(), run.W.shape
    (2.0, torch.Size([21, 3, 3]))
    """
    W0 = start(problem, W0)
    require(noise in ("minibatch", "isotropic"), "noise", repr(noise), "'minibatch' or 'isotropic'")
    check_run(steps, record_every)
    dt = require_positive("duration", duration) / steps
    amplitude = require_positive("sigma", sigma, zero=True) * dt**0.5
    generator = make_generator(seed)
    p, root = problem.p, problem.p.sqrt()
    state = open_space(problem, W0) if noise == "minibatch" else Embeddings(problem, W0)

    def minibatch(t: int) -> None:
        # diag(p) - p p^T = A A^T with A = diag(sqrt p) (I - sqrt p sqrt p^T): N normals are enough
        xi = root * normal(W0.shape[:-2] + p.shape[-1:], problem, generator)
        state.advance(dt * p + amplitude * (xi - p * xi.sum(-1, keepdim=True)))

    def isotropic(t: int) -> None:
        state.advance(dt * p)
        state.W += amplitude * normal(W0.shape, problem, generator)

    advance = minibatch if noise == "minibatch" else isotropic
    run: Trajectory = iterate(problem, W0, state, advance, steps, record_every, progress)
    return replace(run, times=run.times * dt)
