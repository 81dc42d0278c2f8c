"""Training is torch's own descent, is recorded as it was, and does not notice being killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amem_core.induction import (
    RATES,
    SCALES,
    TRAINED,
    Run,
    SimplifiedTransformer,
    TrainingConfig,
    loss_plain,
    margins,
    preset,
    recall_probes,
    train,
)
from amem_core.induction import training as training_module
from tests.oracles import refuses

ROOT = Path(__file__).resolve().parents[1]
SMALL = TrainingConfig(d=8, length=16, sequences=12, rate=2.0, steps=6)


def quietly(config: TrainingConfig, **options) -> Run:
    return train(config, device="cpu", progress=False, **options)


def same(one: Run, two: Run) -> bool:
    """Equal to the last bit."""
    weights = all(torch.equal(getattr(one.weights, name), getattr(two.weights, name)) for name in TRAINED)
    history = all(torch.equal(one.history[name], two.history[name]) for name in one.history)
    return weights and history and torch.equal(one.steps, two.steps) and one.history.keys() == two.history.keys()


# Descent


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("trained", [TRAINED, ("W_O2",), ("W_K1", "W_O2")])
def test_descent_is_that_of_torch(fresh, trained):
    config = replace(SMALL, fresh=fresh, trained=trained, momentum=0.9, weight_decay=1e-2, dtype="float64")
    run, model = quietly(config), SimplifiedTransformer(config.weights())
    optimiser = torch.optim.SGD(
        [getattr(model, name) for name in trained],
        lr=config.rate, momentum=config.momentum, weight_decay=config.weight_decay,
    )  # fmt: skip
    generator, losses = torch.Generator().manual_seed(config.seed_data), []
    batch = None
    for _ in range(config.steps + 1):
        batch = config.task.sample(config.sequences, generator) if fresh or batch is None else batch
        before = model.weights.to(dtype=torch.float64)
        before = before.replace(**{name: getattr(before, name).clone() for name in TRAINED})
        optimiser.zero_grad()
        value = loss_plain(model, batch)
        value.backward()
        losses.append(value.item())
        optimiser.step()
    # seven steps, each of whose gradients agrees to 1e-12
    torch.testing.assert_close(run.history["loss"], torch.tensor(losses, dtype=torch.float64), rtol=1e-9, atol=0)
    for name in TRAINED:
        torch.testing.assert_close(getattr(run.weights, name), getattr(before, name), rtol=1e-9, atol=1e-9)
        assert torch.equal(getattr(run.weights, name), getattr(config.weights(), name)) != (name in trained)


def test_the_loss_falls_and_the_output_memory_forms():
    config = replace(SMALL, d=32, length=32, sequences=200, rate=50.0, steps=30, trained=("W_O2",), zero=("W_O2",))
    run = quietly(config)
    loss, recalled = run.history["loss"], run.history["probe W_O2"]
    assert loss[-1] < 0.8 * loss[0]
    assert recalled[0] == 0 and recalled[-1] > 0.2  # twelve times what chance would recall


# Records


def test_records_are_of_the_steps_they_name():
    config = replace(SMALL, steps=7, record_every=3, held_out=10)
    run = quietly(config)
    assert run.steps.tolist() == [0, 3, 6, 7]
    whole = quietly(replace(config, record_every=1))
    for name, rows in run.history.items():
        assert torch.equal(rows, whole.history[name][run.steps]), name
    shapes = {name: tuple(run.history[f"margin {name}"].shape) for name in TRAINED}
    assert shapes == {"W_K1": (4, 15), "W_K2": (4, 63), "W_O2": (4, 63)}
    # the last row is of the weights that come back
    data, apart = (torch.Generator().manual_seed(seed) for seed in (config.seed_data, config.seed_held_out))
    model = SimplifiedTransformer(run.weights)
    for prefix, batch in (("", config.task.sample(12, data)), ("held-out ", config.task.sample(10, apart))):
        torch.testing.assert_close(run.history[f"{prefix}loss"][-1], loss_plain(model, batch).detach())
        right = model(batch.inputs).argmax(-1) == batch.targets
        torch.testing.assert_close(run.history[f"{prefix}accuracy"][-1], right[batch.counts].float().mean())
    for name, value in recall_probes(run.weights, config.task.triggers).items():
        assert run.history[f"probe {name}"][-1] == value
    for name in TRAINED:
        assert torch.equal(run.history[f"margin {name}"][-1], margins(run.weights, name))


def test_the_same_seeds_give_the_same_run_and_others_another():
    one = quietly(replace(SMALL, fresh=True, random_triggers=True))
    assert same(one, quietly(one.config)) and "probe W_K2 triggers" not in one.history
    for name in ("seed", "seed_data"):
        other = quietly(replace(one.config, **{name: 9}))
        assert not torch.equal(one.history["loss"], other.history["loss"])


def test_what_leaves_the_range_is_said_with_its_step():
    with pytest.raises(OverflowError, match=r"^step \d: "):
        quietly(replace(SMALL, rate=1e38))


# Stopped and started again

STOPPED = {
    "fixed": replace(SMALL, steps=30, momentum=0.9),
    "fresh": replace(SMALL, steps=30, momentum=0.9, rate=0.3, fresh=True, weight_decay=1e-3, held_out=4),
    "output alone": replace(SMALL, steps=30, trained=("W_O2",), weight_decay=1e-3),
}
SCRIPT = """
import sys, torch
from amem_core.induction import TrainingConfig, train
torch.set_num_threads(1)
train(eval(sys.argv[1]), device="cpu", checkpoint=sys.argv[2], checkpoint_every=3, progress=False)
"""


def kill_in_the_middle(config: TrainingConfig, path: Path, after: int) -> int:
    """Run in a process of its own, end it by SIGKILL once so many steps are written; the step that was written."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, repr(config), str(path)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        limit = time.monotonic() + 60
        while not path.exists() or training_module._read(path, config)["step"] < after:
            assert process.poll() is None and time.monotonic() < limit, "ended before it was killed"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    return training_module._read(path, config)["step"]


def test_a_killed_run_goes_on_and_ends_bit_for_bit_the_same(tmp_path):
    config, path = replace(STOPPED["fresh"], steps=150, record_every=4), tmp_path / "run.checkpoint"
    step = kill_in_the_middle(config, path, after=30)
    assert 30 <= step < config.steps
    path.with_name(path.name + ".part").write_bytes(b"half a checkp")  # as if killed while writing
    resumed = quietly(config, checkpoint=path)
    assert same(resumed, quietly(config))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("at", [0, 11, 30])
def test_a_run_stopped_at_any_step_ends_the_same(name, at, tmp_path, monkeypatch):
    config, path, observe = STOPPED[name], tmp_path / "run.checkpoint", training_module._observe

    def stop(config, weights, found, *rest):
        if steps.pop(0) == at:
            raise KeyboardInterrupt
        return observe(config, weights, found, *rest)

    steps = list(range(31))
    wanted = quietly(config)
    monkeypatch.setattr(training_module, "_observe", stop)
    with pytest.raises(KeyboardInterrupt):
        quietly(config, checkpoint=path, checkpoint_every=5)
    assert path.exists() == (at >= 5)
    monkeypatch.setattr(training_module, "_observe", observe)
    assert same(quietly(config, checkpoint=path), wanted)


def test_an_ended_run_is_read_and_not_run_again(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"
    run = quietly(SMALL, checkpoint=path, checkpoint_every=100)
    before = path.read_bytes()
    monkeypatch.setattr(training_module, "loss_and_gradients", None)
    assert same(run, quietly(SMALL, checkpoint=path)) and path.read_bytes() == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("run") / "run.checkpoint"
    quietly(SMALL, checkpoint=path)
    return path.read_bytes()


def damaged(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    return {
        "empty": b"",
        "cut in its first line": whole[:10],
        "cut in its digest": whole[:60],
        "cut in the middle": whole[:middle],
        "one byte short": whole[:-1],
        "one byte long": whole + b"x",
        "one bit flipped": whole[:middle] + flipped + whole[middle + 1 :],
        "something else": b"PK\x03\x04 a file of another program",
    }


@pytest.mark.parametrize("kind", damaged(b"0" * 99))
def test_a_damaged_checkpoint_is_refused_and_stays(kind, whole, tmp_path):
    path, content = tmp_path / "run.checkpoint", damaged(whole)[kind]
    path.write_bytes(content)
    said = "truncated or damaged" if len(content) > 40 and kind != "something else" else "no checkpoint"
    with refuses("checkpoint", rf"run\.checkpoint, {said}", "train" if said == "no checkpoint" else "whole"):
        quietly(SMALL, checkpoint=path)
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change", [{"rate": 2.5}, {"steps": 7}, {"seed": 3}, {"d": 9}, {"trained": ("W_O2",)}])
def test_a_checkpoint_of_another_run_is_refused_and_stays(change, whole, tmp_path):
    path = tmp_path / "run.checkpoint"
    path.write_bytes(whole)
    with refuses("checkpoint", r"run\.checkpoint, of another configuration", "a new name"):
        quietly(replace(SMALL, **change), checkpoint=path)
    assert path.read_bytes() == whole
    assert len({replace(SMALL, **change).digest, SMALL.digest, replace(SMALL).digest}) == 2


def test_places_that_cannot_be_written_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(training_module.State, "at_the_start", None)
    with refuses("checkpoint", "nowhere", "a folder that exists"):
        quietly(SMALL, checkpoint=tmp_path / "nowhere" / "run.checkpoint")
    with refuses("checkpoint", "", "a file"):
        quietly(SMALL, checkpoint=tmp_path)
    with refuses("checkpoint_every", "0", ">= 1"):
        quietly(SMALL, checkpoint_every=0)
    with refuses("chunk", "0", ">= 1"):
        quietly(SMALL, chunk=0)


# Configurations


def test_presets_at_the_size_of_the_paper_are_those_in_print():
    top, bottom = preset("output", "paper"), preset("all", "paper")
    assert (top.d, top.steps, top.trained) == (64, 50, ("W_O2",))
    assert (bottom.d, bottom.trained) == (128, TRAINED)
    for config in (top, bottom):
        assert (config.sequences, config.length, config.K, config.momentum, config.fresh) == (16_384, 256, 5, 0, False)
    assert top.rate in RATES["output"] and bottom.rate in RATES["all"]
    batches = preset("mini-batch", "paper")
    assert (batches.rate, batches.momentum, batches.weight_decay, batches.sequences) == (0.2, 0.9, 1e-4, 128)
    for name in ("output", "all", "mini-batch"):
        sizes = [preset(name, scale) for scale in SCALES]
        work = [c.steps * c.sequences * c.length * c.d for c in sizes]
        assert work == sorted(work) and work[0] < work[1]


def test_a_preset_runs_and_can_be_changed():
    config = preset("mini-batch", steps=2, sequences=6, held_out=4, record_every=1, d=8, length=16, K=1)
    assert config.fresh and quietly(config).steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("d", 0), ("steps", 0), ("sequences", 0), ("length", 1), ("K", 64), ("held_out", -1), ("seed", -1),
        ("rate", -1.0), ("rate", float("nan")), ("momentum", 1.0), ("weight_decay", -1e-3), ("trained", ()),
        ("trained", ("W_V1",)), ("trained", ("W_O2", "W_O2")), ("zero", ("W_E",)), ("scheme", "mup"),
        ("dtype", "float16"), ("record_every", 0), ("seed_held_out", 1), ("seed_data", 2**63),
    ],
)  # fmt: skip
def test_bad_configurations_are_refused(argument, change):
    with refuses(argument):
        replace(SMALL, **{argument: change})


def test_bad_presets_are_refused():
    with refuses("experiment", "figure 8", "output"):
        preset("figure 8")
    with refuses("scale", "phone", "notebook"):
        preset("all", "phone")
    with refuses("changes", "speed", "fields"):
        preset("all", speed=3)
