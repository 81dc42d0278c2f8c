"""The transformer's full-batch step and the generator of its data, against what a reader would write first.

512 sequences of 256 characters; all threads that torch may use, for both sides. Rounds alternate and the fastest of
each counts, so that what else the machine does falls on both.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from amem_core.induction import (
    BigramTask,
    SimplifiedTransformer,
    Weights,
    features_loss_and_gradient,
    fixed_features,
    loss_and_gradients,
    loss_plain,
)
from tests.benchmarks.test_ratios import fastest

B, T, N = 512, 256, 63


def batch_of(task: BigramTask):
    return task.sample(B, torch.Generator().manual_seed(0))


def plain_step(weights: Weights, sequences, trained: tuple[str, ...] = ("W_K1", "W_K2", "W_O2")):
    """Loss and gradients by autograd, of the module with only these matrices trained."""
    model = SimplifiedTransformer(weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)

    def step() -> torch.Tensor:
        model.zero_grad()
        value = loss_plain(model, sequences)
        value.backward()
        return value

    return step


@pytest.mark.parametrize(("d", "target"), [(64, 6), (128, 5)])
def test_a_full_batch_step(benchmark, row, d, target):
    sequences, weights = batch_of(BigramTask.shakespeare()), Weights.draw(N, T, d, seed=0)
    step = plain_step(weights, sequences)

    def ours():
        return loss_and_gradients(weights, sequences)

    assert abs(ours()[0] / step().detach() - 1) < 1e-5
    # the machine is seldom still for as long as a plain step: ours gets as many seconds, not as many rounds
    plain, *times = fastest(step, *[ours] * 4, rounds=4)
    fast = min(times)
    row(f"transformer step, d = {d}", f"{plain:.2f} s", f"{fast:.3f} s", f"{plain / fast:.1f} x", f">= {target} x")
    benchmark.extra_info["ratio"] = plain / fast
    benchmark.pedantic(ours, rounds=2)
    assert plain / fast >= target


def test_a_step_of_the_output_matrix_alone(benchmark, row):
    sequences, weights = batch_of(BigramTask.shakespeare()), Weights.draw(N, T, 64, seed=0)
    step, features = plain_step(weights, sequences, ("W_O2",)), fixed_features(weights, sequences)

    def ours():
        return features_loss_and_gradient(weights.W_O2, features)

    assert abs(ours()[0] / step().detach() - 1) < 1e-5
    plain, *times = fastest(step, *[ours] * 20, rounds=4)
    fast = min(times)
    row("W_O2 step on features, d = 64", f"{plain:.2f} s", f"{fast * 1e3:.1f} ms", f"{plain / fast:.0f} x", ">= 40 x")
    benchmark.extra_info["ratio"] = plain / fast
    benchmark.pedantic(ours, rounds=5)
    assert plain / fast >= 40


def one_by_one(task: BigramTask, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sequences and loss positions, one sequence after the other, one token after the other."""
    bigram, unigram, triggers = task.bigram.numpy(), task.unigram.numpy(), task.triggers.tolist()
    tokens, counts = [], []
    for _ in range(size):
        outputs = {q: int(generator.integers(task.N)) for q in triggers}
        sequence, seen, counted = [generator.choice(task.N, p=unigram)], set(), []
        for _ in range(task.length):
            z = sequence[-1]
            counted.append(z in outputs and z in seen)
            seen.add(z)
            sequence.append(outputs[z] if z in outputs else generator.choice(task.N, p=bigram[z]))
        tokens.append(sequence)
        counts.append(counted)
    return np.array(tokens), np.array(counts)


def test_the_generator(benchmark, row):
    task, generator, rng = BigramTask.shakespeare(), torch.Generator().manual_seed(0), np.random.default_rng(0)
    few = 20

    # the same distribution: means of 512 and of 200 sequences within five standard errors of their difference
    n = task.sample(B, generator).counts.sum(1).double()
    m = torch.from_numpy(one_by_one(task, 200, rng)[1]).sum(1).double()
    assert abs(n.mean() - m.mean()) < 5 * (n.var() / B + m.var() / 200).sqrt()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # both walk on one core; a second one is only waited for
    plain, *times = fastest(lambda: one_by_one(task, few, rng), *[lambda: task.sample(B, generator)] * 5, rounds=8)
    torch.set_num_threads(threads)
    plain, fast = plain / few, min(times) / B
    row("a sequence of the task", f"{plain * 1e6:.0f} us", f"{fast * 1e6:.1f} us", f"{plain / fast:.0f} x", ">= 100 x")
    benchmark.extra_info["ratio"] = plain / fast
    benchmark.pedantic(lambda: task.sample(B, generator), rounds=3)
    assert plain / fast >= 100


MEMORY = """
import re, sys
from pathlib import Path
from tests.benchmarks.test_induction import *

def peak():  # of this process alone; getrusage would begin with the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

sequences, weights = batch_of(BigramTask.shakespeare()), Weights.draw(N, T, 64, seed=0)
step = {"plain": plain_step, "fast": lambda w, s: lambda: loss_and_gradients(w, s)}[sys.argv[1]]
step(weights, sequences[:2])()  # libraries loaded
before = peak()
step(weights, sequences)()
print(peak() - before)
"""


def growth(which: str) -> float:
    """By how many MiB a step makes the largest size of a fresh process grow."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, which],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], env=dict(os.environ),
    )  # fmt: skip
    return int(run.stdout.split()[-1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of a process from /proc")
def test_memory_of_a_full_batch_step(row):
    plain, fast = growth("plain"), growth("fast")
    row("transformer step, memory", f"{plain:.0f} MiB", f"{fast:.0f} MiB", f"{fast / plain:.3f} x", "<= 0.1 x")
    assert 0 < fast <= 0.1 * plain
