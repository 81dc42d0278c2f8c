"""Gradient flow, Eq. (4) of [CSB24], followed in logarithmic time."""

import itertools
import warnings

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from amem_core.dynamics.loop import start
from amem_core.dynamics.trajectory import Trajectory
from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_positive

# beyond this many coordinates LSODA's dense Jacobian costs more than it saves
STIFF_SIZE = 600
# evaluations per coordinate after which the integrator is stuck; it needs some hundreds
BUDGET = 2000


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
    600 coordinates, of which there are at most min(N, d) min(M - 1, d). In double precision on the
    CPU whatever the problem's dtype and device. Members of a batch are integrated one by one.

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
        If rounding keeps the tolerance out of reach, as it does late in a flow between tokens that
        contradict each other: forces of order 1 must then cancel to within ``1/t``.

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
            flow = _Coordinates(single, W)
            stores = flow.stores
            finite("the flow at its start", torch.from_numpy(flow.velocity(np.zeros(flow.size))))
            clock = finite("the time in units of the flow", flow.unit * (flow.unit * times))
            runs.append(flow.record(_integrate(flow, clock.numpy(), tolerance)))
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


class _Coordinates:
    """One problem in coordinates of its own: ``W = W0 + Q_U V Q_E^T / unit``, V of shape (r_U, r_E).

    The columns of ``Q_E`` span the inputs, those of ``Q_U`` the differences of outputs: the flow
    never leaves these spans, and in V no direction is free to grow where scores stand still, as it
    would be in ``C``. Lengths are divided by ``unit``, so that moving V by 1 moves no score by
    more: V follows the time ``unit**2 * t``, and one tolerance fits embeddings of any size.
    """

    def __init__(self, problem: dict, W0: np.ndarray) -> None:
        E, U, self.y, self.p = (problem[k] for k in ("E", "U", "targets", "p"))
        self.W0, gaps = W0, U[1:] - U[0]
        self.Q_E, R_E = np.linalg.qr(E.T)
        self.Q_U, R_U = np.linalg.qr(gaps.T)
        longest = np.linalg.norm(E, axis=1).max() * np.linalg.norm(gaps, axis=1).max()
        self.unit = float(longest) if longest > 0 else 1.0
        self.L_E, self.L_U = R_E.T / self.unit, R_U.T  # E = unit L_E Q_E^T, gaps = L_U Q_U^T
        self.start = np.pad(E @ W0.T @ gaps.T, ((0, 0), (1, 0)))  # scores over that of the first class
        self.size = R_U.shape[0] * R_E.shape[0]
        self.stores = "C" if len(E) * len(U) < E.shape[1] ** 2 else "weights"

    def softmax(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exponentials (N, M) of the scores, and their sums (N, 1)."""
        V = v.reshape(self.L_U.shape[1], self.L_E.shape[1])
        w = self.start.copy()
        w[:, 1:] += self.L_E @ V.T @ self.L_U.T
        P = np.exp(w - w.max(-1, keepdims=True))
        return P, P.sum(-1, keepdims=True)

    def velocity(self, v: np.ndarray) -> np.ndarray:
        """``L_U^T F^T L_E`` with the force ``F = diag(p) (Y - softmax w)``, flattened like ``v``."""
        P, total = self.softmax(v)
        rows = np.arange(len(P))
        P[rows, self.y] = 0.0
        P[rows, self.y] = -P.sum(-1)
        F = P * (-self.p[:, None] / total)
        return (self.L_U.T @ F[:, 1:].T @ self.L_E).ravel()

    def jacobian(self, v: np.ndarray) -> np.ndarray:
        """Minus the Hessian: ``sum_x p(x) S_x (x) l_x l_x^T``, S_x the covariance of outputs under the softmax.

        Without it LSODA takes differences, which are noise near a minimiser.
        """
        P, total = self.softmax(v)
        outputs = np.pad(self.L_U, ((1, 0), (0, 0)))
        centred = outputs - (P / total @ outputs)[:, None]
        weights = P * (self.p[:, None] / total)
        S = (centred * weights[:, :, None]).transpose(0, 2, 1) @ centred
        squares = self.L_E[:, :, None] * self.L_E[:, None]
        (N, r_U, _), r_E = S.shape, self.L_E.shape[1]
        J = (S.reshape(N, -1).T @ squares.reshape(N, -1)).reshape(r_U, r_U, r_E, r_E)
        return -J.transpose(0, 2, 1, 3).reshape(self.size, self.size)

    def record(self, v: np.ndarray) -> np.ndarray:
        """What the trajectory stores of states (T, r_U r_E): the smaller of ``W`` and ``C``."""
        V = v.reshape(len(v), self.L_U.shape[1], self.L_E.shape[1]) / self.unit
        if self.stores == "weights":
            return self.W0 + self.Q_U @ V @ self.Q_E.T
        # gaps^T C^T E = Q_U V Q_E^T, by least squares where embeddings are dependent
        C = (np.linalg.pinv(self.L_U.T) @ V @ np.linalg.pinv(self.L_E) / self.unit).transpose(0, 2, 1)
        return np.concatenate([-C.sum(-1, keepdims=True), C], -1)


def _integrate(flow: _Coordinates, clock: np.ndarray, tolerance: float) -> np.ndarray:
    s, state, evaluations = np.log1p(clock), np.zeros(flow.size), itertools.count()
    if s[-1] == 0:
        return state[None]

    def slope(s: float, v: np.ndarray) -> np.ndarray:
        if next(evaluations) > BUDGET * (10 + flow.size):
            raise stuck(s)
        return np.exp(s) * flow.velocity(v)

    def stuck(s: float) -> RuntimeError:
        t = np.expm1(s) / flow.unit**2
        return RuntimeError(
            f"gradient_flow: around t = {t:.3g} rounding keeps the tolerance {tolerance:g} out of reach, "
            "as it does late where tokens contradict each other; ask for earlier times or a larger tolerance"
        )

    options = {"method": "LSODA", "jac": lambda s, v: np.exp(s) * flow.jacobian(v)}
    if flow.size > STIFF_SIZE:
        options = {"method": "DOP853"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # LSODA's own words for what `stuck` says
        run = solve_ivp(slope, (0.0, s[-1]), state, t_eval=s, rtol=tolerance, atol=tolerance, **options)
    if not run.success:
        raise stuck(run.t[-1] if len(run.t) else 0.0)
    return run.y.T
