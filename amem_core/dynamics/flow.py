"""Gradient flow, Eq. (4) of [CSB24], followed in logarithmic time."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit
from torch import Tensor

from amem_core.dynamics.loop import start
from amem_core.dynamics.trajectory import Trajectory
from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_positive

# beyond this many coordinates LSODA's dense Jacobian costs more than it saves
STIFF_SIZE = 600


def gradient_flow(
    problem: AssociationProblem,
    W0: Tensor | None = None,
    *,
    times: Tensor,
    tolerance: float = 1e-11,
) -> Trajectory:
    r"""Gradient flow :math:`\dot W = -\nabla\mathcal L(W)`, Eq. (4) of [CSB24], at the given times.

    Margins grow like :math:`\log t`, so the flow is integrated in :math:`s = \log(1 + t)`, in which
    nothing is fast and :math:`t = 10^{12}` is near. LSODA (adaptive, switching to an implicit
    method where the problem is stiff, as it is around a finite minimiser); DOP853 for more than
    600 coordinates. The state is the smaller of ``C`` and ``W``; in double precision on the CPU
    whatever the problem's dtype and device. Members of a batch are integrated one by one.

    Parameters
    ----------
    problem : the associations
    W0 : (..., d, d) start; zero by default
    times : (T,) increasing, the first at least 0
    tolerance : local error of the integrator, relative, and absolute in units of the scores

    Raises
    ------
    ValueError
        For times that are not increasing, negative or not finite, or a tolerance outside
        [1e-13, 1e-2] (below, rounding decides).
    OverflowError
        If the state leaves the range of double precision.
    RuntimeError
        If the integrator gives up; its own message is passed on.

    Examples
    --------
    >>> problem = AssociationProblem.orthonormal(1, 2)
    >>> m = gradient_flow(problem, times=torch.tensor([0.0, 100.0])).tightest_margin[-1, 0]
    >>> round((m.exp() + m).item(), 6)  # exp(m) + m = c t + 1 with c = 2
    201.0
    """
    W0 = start(problem, W0)
    require(isinstance(times, Tensor | np.ndarray | list | tuple), "times", repr(times), "a tensor (T,)")
    times = torch.as_tensor(times, dtype=torch.float64)
    require(times.ndim == 1 and len(times) > 0, "times", f"shape {tuple(times.shape)}", "(T,) with T >= 1")
    good = bool(times.isfinite().all()) and float(times[0]) >= 0 and bool((times.diff() > 0).all())
    require(good, "times", times.tolist(), "finite times, the first at least 0, strictly increasing")
    in_range = 1e-13 <= require_positive("tolerance", tolerance) <= 1e-2
    require(in_range, "tolerance", tolerance, "1e-13 <= tolerance <= 1e-2")
    batch = W0.shape[:-2]
    runs, stores = [], "C"
    for single, W in _members(problem, W0, batch):
        with np.errstate(over="ignore", invalid="ignore"):  # seen by `finite` below
            unit = _unit(single)
            field, zero, stores, unpack = _field(single, W, unit)
            finite("the flow at its start", torch.from_numpy(field(zero)))
            clock = finite("the time in units of the flow", unit * (unit * times))
            runs.append(unpack(_integrate(field, zero, clock.numpy(), tolerance)))
    record = finite("the state", torch.from_numpy(np.stack(runs, 1)).to(W0))
    return Trajectory(problem, times, W0, **{stores: record.reshape(len(times), *batch, *record.shape[2:])})


def _members(problem: AssociationProblem, W0: Tensor, batch: torch.Size) -> list:
    parts = {"E": 2, "U": 2, "targets": 1, "p": 1}
    flat = {}
    for name, core in parts.items():
        value = getattr(problem, name).cpu()
        value = value.to(torch.float64) if value.is_floating_point() else value
        flat[name] = value.expand(*batch, *value.shape[-core:]).reshape(-1, *value.shape[-core:]).numpy()
    W = W0.to("cpu", torch.float64).expand(*batch, *W0.shape[-2:]).reshape(-1, *W0.shape[-2:]).numpy()
    return [({name: flat[name][k] for name in parts}, W[k]) for k in range(len(W))]


def _unit(problem: dict) -> float:
    """Longest input times longest output embedding: moving ``W`` by 1 moves no score by more."""
    e, u = (float(np.linalg.norm(problem[k], axis=-1).max()) for k in ("E", "U"))
    return e * u if e * u > 0 else 1.0


def _field(problem: dict, W0: np.ndarray, unit: float) -> tuple[Callable, np.ndarray, str, Callable]:
    """Velocity of the flattened state, its start, what it stores, and how to unpack it.

    With inputs divided by ``unit``, ``unit * W`` follows the same flow in the time ``unit**2 * t``
    and moves no score by more than itself: one tolerance fits embeddings of any size.
    """
    E, U, y, p = (problem[k] for k in ("E", "U", "targets", "p"))
    (N, d), M = E.shape, len(U)
    w0 = E @ W0.T @ U.T
    E = E / unit
    if M == 2:
        sign = 1.0 - 2.0 * y
        G = ((U[0] - U[1]) ** 2).sum() * sign[:, None] * (E @ E.T) * sign
        m0 = sign * (w0[:, 0] - w0[:, 1])

        def unpack(a: np.ndarray) -> np.ndarray:
            return np.stack([a * sign, -a * sign], -1) / unit**2

        return lambda a: p * expit(-(m0 + G @ a)), np.zeros(N), "C", unpack
    rows = np.arange(N)

    def force(w: np.ndarray) -> np.ndarray:
        P = np.exp(w - w.max(-1, keepdims=True))
        total = P.sum(-1)
        P[rows, y] = 0.0
        P[rows, y] = -P.sum(-1)
        return P * (-p / total)[:, None]

    if N * M <= d * d:
        K_E, K_U = E @ E.T, U @ U.T
        velocity = lambda c: force(w0 + K_E @ c.reshape(N, M) @ K_U).ravel()  # noqa: E731
        return velocity, np.zeros(N * M), "C", lambda c: c.reshape(-1, N, M) / unit**2
    velocity = lambda c: (U.T @ (force(w0 + E @ c.reshape(d, d).T @ U.T).T @ E)).ravel()  # noqa: E731
    return velocity, np.zeros(d * d), "weights", lambda c: W0 + c.reshape(-1, d, d) / unit


def _integrate(field: Callable, zero: np.ndarray, times: np.ndarray, tolerance: float) -> np.ndarray:
    s = np.log1p(times)
    if len(s) == 1 and s[0] == 0:
        return zero[None]
    method = "LSODA" if len(zero) <= STIFF_SIZE else "DOP853"
    run = solve_ivp(
        lambda s, c: np.exp(s) * field(c), (0.0, s[-1]), zero, method, t_eval=s, rtol=tolerance, atol=tolerance
    )
    if not run.success:
        raise RuntimeError(f"gradient_flow: {run.message}")
    return run.y.T
