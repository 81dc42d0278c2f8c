"""Sharpness where a dense Hessian would not fit, and a map of it against one eigenvalue problem a pixel."""

import resource
import time

import numpy as np
import torch

from amem_core import AssociationProblem, gradient, hessian, sharpness, zipf_frequencies
from amem_core.landscape import planar_directions, sharpness_map
from tests.benchmarks.test_ratios import fastest

D = torch.float64


def plain_sharpness(W, problem):
    """Eq. (26) written out for one matrix, and its largest eigenvalue."""
    q = torch.softmax(problem.E @ W.T @ problem.U.T, -1)
    C = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    H = torch.einsum("x,xzy,zi,xj,yk,xl->ijkl", problem.p, C, problem.U, problem.E, problem.U, problem.E)
    return torch.linalg.eigvalsh(H.reshape(4, 4))[-1]


def bare_sharpness(F, E, U, p, W):
    """The same in NumPy with all that can be known beforehand in ``F``: the least such a loop can take."""
    w = E @ W.T @ U.T
    q = np.exp(w - w.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)
    C = p[:, None, None] * (q[:, :, None] * np.eye(2) - q[:, :, None] * q[:, None, :])
    return np.linalg.eigvalsh(np.einsum("xzi,xzj->ij", F, C @ F))[-1]


def test_a_map_of_a_hundred_by_a_hundred(benchmark, row):
    torch.set_num_threads(1)  # small tensors: the loop is fastest so
    angles = 2 * torch.pi * torch.rand(30, dtype=D, generator=torch.Generator().manual_seed(0))
    problem = AssociationProblem.planar(angles, torch.arange(30) % 2, zipf_frequencies(30))
    directions, line = planar_directions(problem), torch.linspace(-20, 20, 100, dtype=D)
    E, U, p = (part.numpy() for part in (problem.E, problem.U, problem.p))
    F = np.einsum("zi,xj->xzij", U, E).reshape(30, 2, 4)

    def pixels():
        return (line[k % 100] * directions[0] + line[k // 100] * directions[1] for k in range(0, 10_000, 50))

    def ours() -> torch.Tensor:
        return sharpness_map(problem, directions, line, line)

    found = ours().flatten()[::50]  # the same map, before any race
    assert max(abs(float(plain_sharpness(W, problem) - s)) for W, s in zip(pixels(), found, strict=True)) < 1e-14
    assert max(abs(bare_sharpness(F, E, U, p, W.numpy()) - s) for W, s in zip(pixels(), found, strict=True)) < 1e-14
    plain, dense, bare, fast = fastest(
        lambda: [plain_sharpness(W, problem) for W in pixels()],
        lambda: [torch.linalg.eigvalsh(hessian(W, problem).reshape(4, 4))[-1] for W in pixels()],
        lambda: [bare_sharpness(F, E, U, p, W.numpy()) for W in pixels()],
        ours,
        rounds=15,
    )
    for name, time_of_200, target in (
        ("sharpness of 100 x 100 matrices, N = 30: a loop over (26)", plain, ">= 100 x"),
        ("the same, a loop over hessian", dense, ">= 100 x"),
        ("the same, the barest loop in NumPy", bare, ""),
    ):
        ratio = 50 * time_of_200 / fast
        row(name, f"{50 * time_of_200 * 1e3:.0f} ms", f"{fast * 1e3:.2f} ms", f"{ratio:.0f} x", target)
    benchmark.extra_info["ratio"] = 50 * plain / fast
    benchmark.pedantic(ours, rounds=5)
    assert 50 * min(plain, dense) / fast >= 100


def test_the_sharpness_of_a_large_memory(benchmark, row):
    torch.set_num_threads(
        1
    )  # of the two cores; time is that of this thread, which others on the machine do not lengthen
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    zero, times = torch.zeros(512, 512, dtype=D), []
    for name, p in (("Zipf", zipf_frequencies(1000)), ("uniform", None)):
        problem = AssociationProblem.spherical(1000, 1000, 512, seed=0, p=p)
        for place, W in (("at zero", zero), ("on the way", -3e4 * gradient(zero, problem))):
            begin = time.thread_time()
            value = float(sharpness(W, problem))
            times.append(time.thread_time() - begin)
            print(f"\n{name} frequencies, {place}: {value:.6g} in {times[-1]:.1f} s", end="")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row("sharpness, d = 512, N = M = 1,000, one core", "", f"{min(times):.1f} to {max(times):.1f} s", "", "< 10 s")
    row("its memory, with that of the process", f"{before:.0f} MiB before", f"{peak:.0f} MiB", "", "< 1,000 MiB")
    benchmark.extra_info["seconds"] = max(times)
    benchmark.pedantic(lambda: sharpness(zero, problem), rounds=1)
    assert max(times) < 10
    assert peak < 1000 + max(0, before - 400)  # what other benchmarks have left in the process is not ours
