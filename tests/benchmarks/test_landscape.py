"""How long the grids of Figure 3 take, against the plain loop that anybody would write first."""

import resource
import time

import torch

from amem_core.landscape import NEVER, hitting_times

STEPS = 1000


def figure_3(n):
    """Correlation, frequency and rate along three axes of n values."""
    alpha = torch.linspace(0, 0.99, n, dtype=torch.float64)
    p1 = torch.sigmoid(torch.linspace(0, 5, n, dtype=torch.float64))
    rate = torch.logspace(-1, 3, n, dtype=torch.float64)
    return alpha[:, None, None], p1[:, None], rate


def plain_steps(alpha, p1, rate, steps):
    """Autograd on the matrix, one step after the other; the first step that recalls both tokens, and the work."""
    e2 = torch.stack([alpha, (1 - alpha**2).sqrt()])
    E = torch.stack([torch.tensor([1.0, 0.0], dtype=torch.float64), e2])
    p, targets = torch.stack([p1, 1 - p1]), torch.arange(2)
    W, first = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True), NEVER
    for t in range(1, steps + 1):
        loss = (p * torch.nn.functional.cross_entropy(E @ W.T, targets, reduction="none")).sum()
        loss.backward()
        with torch.no_grad():
            W -= rate * W.grad
            W.grad.zero_()
            scores = E @ W.T
            done = bool((scores[0, 0] > scores[0, 1]) & (scores[1, 1] > scores[1, 0]))
        if done and first == NEVER:
            first = t
    return first


def test_a_thousand_cells_a_thousand_times_faster_than_autograd(benchmark):
    alpha, p1, rate = figure_3(10)
    torch.set_num_threads(1)  # the plain loop is fastest so
    hitting_times(alpha, p1, rate, steps=STEPS)  # libraries loaded
    found = benchmark.pedantic(lambda: hitting_times(alpha, p1, rate, steps=STEPS), rounds=5)
    ours = benchmark.stats.stats.median
    sample = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:6].tolist()
    begin = time.perf_counter()
    for k in sample:
        i, j, m = k // 100, k // 10 % 10, k % 10
        assert plain_steps(alpha[i, 0, 0], p1[j, 0], rate[m], STEPS) == found[i, j, m]
    plain = (time.perf_counter() - begin) / (len(sample) * STEPS)
    needed = torch.where(found == NEVER, STEPS, found).sum().item()
    print(
        f"\n10 x 10 x 10 cells x {STEPS} steps: {ours * 1e3:.1f} ms; plain loop {plain * 1e6:.0f} us a step, "
        f"{plain * 1e6:.0f} s for the million: {plain * 1e6 / ours:,.0f} times; "
        f"if it also stops each cell when done ({needed:,} steps): {plain * needed / ours:,.0f} times"
    )
    assert plain * 1e6 / ours >= 1000


def test_eight_million_cells_in_two_minutes_and_bounded_memory(benchmark):
    alpha, p1, rate = figure_3(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = benchmark.pedantic(lambda: hitting_times(alpha, p1, rate, steps=STEPS), rounds=1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    work = torch.where(found == NEVER, STEPS, found).double().sum().item()
    seconds = benchmark.stats.stats.median
    late = (found == NEVER).double().mean()
    print(
        f"\n200 x 200 x 200 cells, up to {STEPS} steps: {seconds:.1f} s, {work:.3g} cell-steps, "
        f"{seconds / work * 1e9:.1f} ns each; {late:.1%} not done; memory grew by {grown:.0f} MiB (32 are the answer)"
    )
    assert seconds < 120
    assert grown < 200


def test_eight_million_cells_that_are_never_done(benchmark):
    # the worst case: one input with two answers; a twentieth of the grid
    one = torch.ones((), dtype=torch.float64)
    p1 = torch.linspace(0.5, 0.99, 2000, dtype=torch.float64)[:, None]
    rate = torch.logspace(-1, 3, 200, dtype=torch.float64)
    begin = time.process_time()
    found = benchmark.pedantic(lambda: hitting_times(one, p1, rate, steps=STEPS), rounds=1)
    processor = time.process_time() - begin  # of all threads: what others take from a shared machine is not counted
    assert (found == NEVER).all()
    wall = 20 * benchmark.stats.stats.median
    print(f"\n8 million cells of 1,000 full steps: {wall:.0f} s, {20 * processor:.0f} s of processor time")
    assert 20 * processor / 2 < 120
