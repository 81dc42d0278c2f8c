"""Speed and memory as ratios to a plain training loop, measured side by side in one run.

Rounds of the two alternate and the fastest of each counts, so that what else the machine does
falls on both.
"""

import itertools
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from amem_core import AssociationProblem
from amem_core.dynamics import gradient_descent
from amem_core.dynamics.spaces import Embeddings
from amem_core.memory import gradient_of, scores_of
from tests.benchmarks.plain import large_problem, train

D = torch.float64


def fastest(*calls: Callable[[], object], rounds: int) -> list[float]:
    """Least time of each call over alternating rounds, in seconds; one round before them does not count."""
    times = []
    for _ in range(rounds + 1):
        once = []
        for call in calls:
            start = time.perf_counter()
            call()
            once.append(time.perf_counter() - start)
        times.append(once)
    return [min(column) for column in zip(*times[1:], strict=True)]


def ratio_to_plain(
    row: Callable,
    name: str,
    ours: Callable[[], object],
    updates: int,
    single: AssociationProblem,
    rounds: int,
    least: int,
) -> float:
    """Time of a step of the plain loop over that of one of our ``updates``, each one step of one configuration."""
    plain, fast = fastest(lambda: train(single, 1.0, 400), ours, rounds=rounds)
    plain, fast = plain / 400, fast / updates
    times = (f"{seconds * 1e6:.3g} us" for seconds in (plain, fast))
    row(f"{name}, per configuration-step", *times, f"{plain / fast:,.1f} x", f">= {least:,} x")
    return plain / fast


def test_a_thousand_two_token_memories_for_a_thousand_steps(benchmark, row):
    alpha = torch.linspace(-0.9, 0.9, 40, dtype=D)[:, None]
    grid = AssociationProblem.two_tokens(alpha, torch.linspace(0.5, 0.98, 25, dtype=D))
    single = AssociationProblem.two_tokens(float(alpha[30, 0]), 0.5)

    def ours() -> torch.Tensor:
        return gradient_descent(grid, rate=1.0, steps=1000, record_every=1000, progress=False).W[-1]

    # the same memory, before any race
    assert float((ours()[30, 0] - train(single, 1.0, 1000)).abs().max()) < 1e-10
    ratio = ratio_to_plain(row, "two tokens", ours, 1_000_000, single, rounds=7, least=1000)
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(ours, rounds=3)
    assert ratio >= 1000


def test_a_thousand_memories_of_32_tokens(benchmark, row):
    generator = torch.Generator().manual_seed(0)
    E, U = (torch.randn(1000, 32, 32, dtype=D, generator=generator) / 32**0.5 for _ in range(2))
    targets = torch.randint(32, (1000, 32), generator=generator)
    p = torch.full((32,), 1 / 32, dtype=D)
    batch = AssociationProblem(E, U, targets, p)
    single = AssociationProblem(E[7], U[7], targets[7], p)

    def ours() -> torch.Tensor:
        return gradient_descent(batch, rate=1.0, steps=50, record_every=50, progress=False).W[-1]

    assert float((ours()[7] - train(single, 1.0, 50)).abs().max()) < 1e-12
    ratio = ratio_to_plain(row, "N = M = d = 32", ours, 50_000, single, rounds=5, least=8)
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(ours, rounds=1)
    assert ratio >= 8


def test_one_step_of_a_large_memory(benchmark, row):
    problem = large_problem()
    state = Embeddings(problem, torch.zeros(256, 256, dtype=D))
    W, q = torch.zeros(256, 256, dtype=D), problem.p.clone()

    def ours() -> None:
        state.advance(q)

    def products() -> None:
        gradient_of(scores_of(W, problem.E, problem.U), problem.E, problem.U)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one core is more often undisturbed than all of them; the work is the same
    fast, alone, plain = fastest(ours, products, lambda: train(problem, 1.0, 1), rounds=25)
    torch.set_num_threads(threads)
    row(
        "large step against its products",
        f"{alone * 1e3:.1f} ms",
        f"{fast * 1e3:.1f} ms",
        f"{fast / alone:.2f} x",
        "<= 1.5 x",
    )
    row(
        "large step against autograd",
        f"{plain * 1e3:.1f} ms",
        f"{fast * 1e3:.1f} ms",
        f"{fast / plain:.2f} x",
        "<= 1 x",
    )
    benchmark.extra_info.update(products=fast / alone, autograd=fast / plain)
    benchmark.pedantic(ours, rounds=5)
    assert fast <= 1.5 * alone
    assert fast <= plain


def peak_memory(call: Callable[[], object]) -> int:
    """Largest number of bytes that tensors allocated by the call hold at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        call()
    events = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held)


def test_memory_of_a_large_descent(row):
    problem = large_problem()
    options = {"rate": 1.0, "steps": 4, "record_every": 4, "progress": False}
    plain = peak_memory(lambda: train(problem, 1.0, 4))
    closed = peak_memory(lambda: gradient_descent(problem, **options))
    row(
        "large descent, peak memory",
        *(f"{size / 2**20:.1f} MiB" for size in (plain, closed)),
        f"{closed / plain:.2f} x",
        "<= 1 x",
    )
    assert closed <= plain
