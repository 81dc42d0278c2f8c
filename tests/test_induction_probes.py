"""Probes of the three memories: all is recalled from memories written by hand, chance from random ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amem_core.induction import (
    TRAINED,
    BigramTask,
    Weights,
    ideal_memories,
    loss_and_gradients,
    margins,
    recall,
    recall_probes,
)
from tests.oracles import refuses

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wide() -> Weights:
    """Nearly orthogonal embeddings: products of two are of size 1/sqrt(d) = 1/32."""
    return Weights.draw(40, 80, 1024, seed=0, scheme="unit", dtype=torch.float64)


def keyed(weights: Weights, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Cues and right answers, by the definition."""
    if name == "W_K1":
        return weights.p[1:], weights.p[:-1]
    if name == "W_K2":
        return weights.W_E, torch.stack([weights.W_O1 @ (weights.W_V1 @ e) for e in weights.W_E])
    return torch.stack([weights.W_V2 @ e for e in weights.W_E]), weights.W_U


def test_ideal_memories_are_sums_of_outer_products():
    weights = Weights.draw(5, 7, 6, seed=1, dtype=torch.float64)
    triggers = torch.tensor([4, 1])
    found = ideal_memories(weights, triggers)
    for name in TRAINED:
        cues, answers = keyed(weights, name)
        left, right = (answers, cues) if name == "W_O2" else (cues, answers)
        pairs = range(len(left)) if name == "W_K1" else triggers.tolist()
        wanted = sum(torch.outer(left[k], right[k]) for k in pairs)
        torch.testing.assert_close(found[name], wanted, rtol=1e-13, atol=1e-13)  # a few roundings


def test_ideal_memories_recall_everything(wide):
    written = wide.replace(**ideal_memories(wide))
    assert set(recall_probes(written, torch.arange(5)).values()) == {1.0}
    assert all(margins(written, name).min() > 0 for name in TRAINED)


def test_transposed_keys_look_the_wrong_way(wide):
    ideal = ideal_memories(wide)
    # position t then chooses t + 1, which it can choose where it must not look
    turned = wide.replace(W_K1=ideal["W_K1"].T, W_K2=ideal["W_K2"].T)
    assert recall(turned, "W_K1") <= 1 / 79  # the last position alone has no successor
    assert recall(turned, "W_K2") < 0.2


def test_a_memory_of_some_tokens_recalls_these(wide):
    held = torch.tensor([7, 11, 30])
    written = wide.replace(**ideal_memories(wide, held))
    for name in ("W_K2", "W_O2"):
        right = margins(written, name) > 0
        assert right[held].all() and right.sum() < 20
        assert recall(written, name, triggers=held) == 1


@pytest.mark.parametrize("seed", range(3))
def test_random_matrices_recall_by_chance(seed):
    N, T = 200, 200
    weights = Weights.draw(N, T, 64, seed=seed)
    # chance 1/200 for each of 200: more than 6 right ones have a probability of 1e-5
    for name in TRAINED:
        assert recall(weights, name) <= 6 / 199
    # position t chooses among t + 1: the sum over t of 1/(t + 1) is 4.9, the variance below it
    assert recall(weights, "W_K1", causal=True) <= (4.9 + 5 * 4.9**0.5) / 199
    few = [recall(weights, "W_K2", triggers=torch.arange(5 * k, 5 * k + 5)) for k in range(40)]
    assert abs(sum(few) / 40 - 0.2) < 0.2  # 200 choices among 5, not quite independent


def test_zeros_recall_nothing():
    weights = Weights.draw(9, 70, 8, seed=2, zero=TRAINED)
    assert set(recall_probes(weights, torch.tensor([1, 2])).values()) == {0.0}


@pytest.mark.parametrize(("name", "causal"), [*((name, False) for name in TRAINED), ("W_K1", True)])
def test_margins_follow_the_definition(name, causal):
    weights = Weights.draw(6, 9, 5, seed=3, dtype=torch.float64)
    cues, answers = keyed(weights, name)
    if name == "W_K1":
        answers = weights.p  # the last position is a candidate too
    W = getattr(weights, name).T if name == "W_O2" else getattr(weights, name)
    wanted = []
    for i, cue in enumerate(cues):
        scores = [float(cue @ W @ answer) for answer in answers]
        scores = scores[: i + 2] if causal else scores
        wanted.append(scores[i] - max(s for j, s in enumerate(scores) if j != i))
    options = {"causal": True} if causal else {}
    found = margins(weights, name, **options)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert recall(weights, name, **options) == sum(m > 0 for m in wanted) / len(wanted)


def test_the_first_positions_alone():
    weights = Weights.draw(4, 70, 8, seed=4)
    short = weights.replace(p=weights.p[:64])
    for causal in (False, True):
        assert torch.equal(margins(weights, "W_K1", first=64, causal=causal), margins(short, "W_K1", causal=causal))
    found = recall_probes(weights)
    assert "W_K2 triggers" not in found and found["W_K1 first 64"] == recall(short, "W_K1")
    assert recall_probes(Weights.draw(4, 9, 8, seed=4)).keys() == found.keys()  # fewer than 64


def test_a_head_of_ideal_memories_solves_the_task():
    task = BigramTask.shakespeare(length=48, no_repeat=True)
    batch = task.sample(30, torch.Generator().manual_seed(5))
    weights = Weights.draw(63, 48, 512, seed=6, scaled=False)
    # scores of the right ones grow like d, those of others like its root: attention is sharp without the division
    written = weights.replace(**ideal_memories(weights, task.triggers))
    written = written.replace(W_O2=ideal_memories(weights)["W_O2"])
    assert loss_and_gradients(weights, batch)[2] < 0.2 < 0.9 < loss_and_gradients(written, batch)[2]


def test_bad_calls_are_refused():
    weights = Weights.draw(4, 9, 3, seed=7)
    with refuses("name", "W_V1", "W_K1"):
        margins(weights, "W_V1")
    with refuses("names", "W_E", "W_K1"):
        ideal_memories(weights, names=("W_E",))
    with refuses("triggers", r"\[4, 1\]", "N-1 = 3"):
        recall(weights, "W_K2", triggers=torch.tensor([4, 1]))
    with refuses("triggers", r"\[1, 1\]", "different"):
        recall_probes(weights, torch.tensor([1, 1]))
    with refuses("triggers", r"\(1,\)", "K >= 2"):
        recall(weights, "W_O2", triggers=torch.tensor([1]))
    with refuses("triggers", "", "None for W_K1"):
        recall(weights, "W_K1", triggers=torch.tensor([1, 2]))
    with refuses("first", "10", "T = 9"):
        recall(weights, "W_K1", first=10)
    with refuses("first", "1", ">= 2"):
        recall(weights, "W_K1", first=1)
    with refuses("first", "3", "None"):
        recall(weights, "W_O2", first=3)
    with refuses("causal", "True", "False"):
        recall(weights, "W_O2", causal=True)
    with refuses("weights", "N = 1", "N >= 2"):
        recall(Weights.draw(1, 9, 3, seed=7), "W_O2")


# Of probes, configurations and training
WRONG_TYPES = {  # without the shape checker, which would speak first
    "config": "train(5)",
    "checkpoint": "train(small, checkpoint=5)",
    "checkpoint_every": "train(small, checkpoint_every=2.5)",
    "d": "replace(small, d='8')",
    "rate": "replace(small, rate=None)",
    "fresh": "replace(small, fresh=1)",
    "trained": "replace(small, trained=['W_O2'])",
    "dtype": "replace(small, dtype=torch.float32)",
    "experiment": "preset(['all'])",
    "triggers": "recall(small.weights(), 'W_K2', triggers=[1, 2])",
    "first": "recall(small.weights(), 'W_K1', first=2.0)",
    "names": "ideal_memories(small.weights(), names='W_K1')",
}


def test_wrong_types_are_refused():
    script = (
        "import json, sys, torch\nfrom dataclasses import replace\nfrom amem_core.induction import *\n"
        "small = TrainingConfig(d=8, length=16, sequences=12, rate=2.0, steps=6)\n"
        "for call in json.load(sys.stdin):\n"
        "    try: eval(call); print('nothing')\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], input=json.dumps(list(WRONG_TYPES.values())),
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for argument, answer in zip(WRONG_TYPES, done.stdout.splitlines(), strict=True):
        assert answer.startswith(f"ValueError {argument}: found ") and ", allowed: " in answer, answer
