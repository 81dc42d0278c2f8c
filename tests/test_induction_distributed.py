"""Two processes under torchrun give the losses of one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amem_core.induction import BigramTask, Team, TrainingConfig, train
from tests.oracles import refuses

ROOT = Path(__file__).resolve().parents[1]
SMALL = TrainingConfig(d=16, length=20, sequences=15, rate=1.0, steps=8, held_out=7, momentum=0.5)
CONFIGS = {
    "fixed": SMALL,
    "fresh": replace(SMALL, fresh=True, weight_decay=1e-3),
    "output alone": replace(SMALL, trained=("W_O2",), rate=5.0),
    "two sequences": replace(SMALL, sequences=2, length=6, held_out=0, fresh=True),  # often without a loss position
}
SCRIPT = """
import os, sys, warnings
from dataclasses import replace
from pathlib import Path
import torch
from amem_core.induction import TrainingConfig, train
warnings.simplefilter("error")
torch.set_num_threads(1)
configs, folder = eval(sys.argv[1]), Path(sys.argv[2])
rank = os.environ["RANK"]
for name, config in configs.items():
    run = train(config, device="cpu", checkpoint=folder / f"{name}.checkpoint", progress=False)
    again = train(config, device="cpu", checkpoint=folder / f"{name}.checkpoint", progress=False)
    kept = [run.history, run.weights.W_O2, again.history]
    torch.save(kept, folder / f"{name}.{rank}.pt")
few = replace(configs["fresh"], sequences=1)
calls = {
    "few": lambda: train(few, device="cpu"),
    # one process finds the run at its end, the other nothing
    "differ": lambda: train(config, device="cpu", checkpoint=folder / f"{name}.checkpoint{rank.strip('0')}"),
}
for call in calls:
    try:
        calls[call]()
    except ValueError as error:
        (folder / f"{call}.{rank}").write_text(str(error))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes leave behind."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), repr(CONFIGS), str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_give_the_losses_of_one(name, folder):
    one = train(CONFIGS[name], device="cpu", progress=False)
    (history, W_O2, again), (other, other_W_O2, other_again) = (
        torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert history.keys() == one.history.keys()
    for key in history:
        assert torch.equal(history[key], other[key]), "every process knows the same"
        # the second call goes on from the checkpoint of the first, which had ended
        assert torch.equal(history[key], again[key]) and torch.equal(history[key], other_again[key])
        if "loss" in key or "accuracy" in key:
            torch.testing.assert_close(history[key], one.history[key], rtol=1e-6, atol=1e-6)
    assert torch.equal(W_O2, other_W_O2)
    assert not torch.equal(W_O2, CONFIGS[name].weights().W_O2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("few", "sequences: found 1, allowed: at least one for each of 2 processes"),
        ("differ", "checkpoint: found 0 to 9 in different processes, allowed: the same in all of them"),
    ],
)
def test_bad_calls_are_refused_in_each_process(call, said, folder):
    for rank in (0, 1):
        assert (folder / f"{call}.{rank}").read_text() == said


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_the_whole_and_nothing_twice(size):
    batch = BigramTask.shakespeare(length=20).sample(5, torch.Generator().manual_seed(0))
    shares = [Team(rank, size).share(batch).tokens for rank in range(size)]
    rows = sorted(row for share in shares for row in share.tolist())
    assert rows == sorted(batch.tokens.tolist()) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_bad_teams_are_refused():
    with refuses("rank", "2", "size-1 = 1"):
        Team(2, 2)
    with refuses("size", "0", ">= 1"):
        Team(0, 0)
    batch = BigramTask.shakespeare(length=20).sample(2, torch.Generator().manual_seed(0))
    with refuses("sequences", "2", "each of 3"):
        Team(0, 3).share(batch)
