"""Recorded runs: they are what training gives, survive being stopped, and their first steps come out again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from amem_core import recorded
from amem_core.induction import (
    GeneralConfig,
    TrainingConfig,
    Weights,
    features_loss_and_gradient,
    fixed_features,
    loss_and_gradients,
    margins,
    preset,
    task,
    train,
    train_general,
)
from amem_core.induction import record as recorder
from amem_core.induction.record import SHOWN, observer, record
from amem_core.induction.recordings import EXAMPLE, RECORDINGS, Recording, example
from tests.oracles import refuses

SMALL = TrainingConfig(d=8, length=48, sequences=12, rate=2.0, steps=6, held_out=5)
TWO = Recording("a test", (SMALL, replace(SMALL, rate=1.0, seed=4)), maps=True)
MADE = sorted(path.stem for path in recorded.HOME.glob("*.json") if path.stem in RECORDINGS)


def made(folder: Path, recording: Recording = TWO) -> tuple[dict, dict]:
    record("small", recording, checkpoints=folder / "at", out=folder, device="cpu", progress=False, every=1)
    return recorded.load("small", folder)


def equal(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


def test_a_recording_is_what_training_gives(tmp_path):
    arrays, words = made(tmp_path)
    assert words["what"] == "a test"
    assert [run["rate"] for run in words["runs"]] == arrays["rate"].tolist() == [2.0, 1.0]
    for r, config in enumerate(TWO.runs):
        run = train(config, device="cpu", progress=False)
        for name in ("loss", "accuracy", "held-out loss", "probe W_K2"):
            assert np.array_equal(arrays[name][r], run.history[name].float().numpy())
        last = margins(run.weights, "W_O2")
        assert np.array_equal(arrays["margins W_O2"][r, -1], last[list(SHOWN)].numpy())
        median = np.median(margins(run.weights, "W_K1").numpy())
        assert arrays["margin quantiles W_K1"][r, -1, 2] == pytest.approx(median, rel=1e-6)


def test_maps_are_the_attention_of_the_recorded_steps(tmp_path):
    arrays, _ = made(tmp_path)
    tokens = torch.from_numpy(arrays["example"])[None]
    weights = SMALL.weights()
    h = weights.W_E[tokens] + weights.p[: tokens.shape[1]]
    scores = (h @ weights.W_K1 @ h.mT / 8**0.5)[0]
    maps = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    assert arrays["map steps"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.abs(arrays["maps"][0, 0, 0] - 255 * maps.numpy()).max() <= 0.5 + 1e-3  # rounded to units of 1/255
    assert np.abs(arrays["maps"].astype(int).sum(-1) - 255).max() <= EXAMPLE * 0.5


def test_an_interrupted_recording_ends_bit_for_bit_as_if_it_never_stopped(tmp_path, monkeypatch):
    whole, _ = made(tmp_path / "whole")
    calls = [0]

    def breaking(config, maps):
        observe = observer(config, maps)

        def observed(weights):
            calls[0] += 1
            if calls[0] % 4 == 0:
                raise KeyboardInterrupt
            return observe(weights)

        return observed

    monkeypatch.setattr(recorder, "observer", breaking)
    stops = 0
    while True:
        try:
            pieces, words = made(tmp_path / "pieces")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert equal(whole, pieces)
    assert all(run["wall_seconds"] >= 0 for run in words["runs"])


def test_a_recording_of_general_transformers(tmp_path):
    small = GeneralConfig(d=8, length=96, sequences=4, held_out=6, warm_up=1, steps=4, record_every=2, maps_at=(0, 4))
    runs = (replace(small, layers=1), replace(small, layers=2), replace(small, layers=2, seed=3))
    arrays, words = made(tmp_path, Recording("a test", runs, maps=True))
    assert arrays["layers"].tolist() == [1, 2, 2]
    last = train_general(runs[2], device="cpu", progress=False)
    assert np.array_equal(arrays["held-out accuracy"][2], last.history["held-out accuracy"].numpy())
    shares = arrays["held-out right"].sum(1) / arrays["held-out counted"].sum(1)
    assert shares == pytest.approx(arrays["held-out accuracy"][:, -1], rel=1e-6)
    first = train_general(runs[1], device="cpu", progress=False)
    assert arrays["maps two"].shape == (2, 2, 80, 80)
    assert np.abs(arrays["maps two"][1] / 255 - first.maps[1, :, 0, :80, :80].numpy()).max() <= 0.5 / 255 + 1e-6
    assert arrays["predicted two"][1].tolist() == first.predicted[1, :80].tolist()
    assert arrays["maps tokens"].tolist() == first.tokens[:81].tolist()
    assert [run["layers"] for run in words["runs"]] == [1, 2, 2]


def test_what_other_code_has_made_is_not_read(tmp_path, monkeypatch):
    made(tmp_path)
    files = set((tmp_path / "at").iterdir())
    made(tmp_path)
    assert set((tmp_path / "at").iterdir()) == files
    monkeypatch.setitem(recorder.COMPUTES, TrainingConfig, (task,))
    made(tmp_path)
    assert len(set((tmp_path / "at").iterdir()) - files) == len(TWO.runs)


def test_runs_with_other_steps_are_refused(tmp_path):
    with refuses("runs", "steps"):
        made(tmp_path, replace(TWO, runs=(SMALL, replace(SMALL, record_every=2))))


def test_another_observer_cannot_go_on_with_a_checkpoint(tmp_path):
    path = tmp_path / "run.ckpt"
    options = {"device": "cpu", "progress": False, "checkpoint": path, "checkpoint_every": 1}

    def stopping(weights: Weights) -> dict:
        if weights.W_O2.norm() != SMALL.weights().W_O2.norm():
            raise KeyboardInterrupt
        return {"here": torch.zeros(1)}

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, **options, observe=stopping)
    before = path.read_bytes()
    with refuses("observe", "accuracy", "here"):
        train(SMALL, **options)
    assert path.read_bytes() == before


def test_the_example_has_positions_that_count_of_several_triggers():
    config = preset("all", "notebook")
    tokens = example(config).tolist()
    triggers = config.task.triggers.tolist()
    seen = [q for q in tokens if q in triggers]
    assert len({q for q in seen if seen.count(q) > 1}) >= 3
    assert max(Counter(pairwise(tokens)).values()) <= 3
    follow = {(q, o) for q, o in pairwise(tokens) if q in triggers}
    assert len(follow) == len({q for q in tokens[:-1] if q in triggers})  # each trigger has one output here


def test_margins_are_kept_of_all_triggers_and_of_tokens_of_all_frequencies():
    task = SMALL.task
    by_frequency = sorted(range(task.N), key=lambda token: -task.unigram[token].item())
    assert [by_frequency.index(token) for token in SHOWN] == [0, 1, 2, 3, 4, 10, 20, 30, 45, 60]
    assert list(SHOWN[:5]) == task.triggers.tolist()


def test_damaged_and_missing_recordings_are_refused(tmp_path):
    made(tmp_path)
    npz = tmp_path / "small.npz"
    npz.write_bytes(npz.read_bytes()[:-1])
    with refuses("name", "SHA-256"):
        recorded.load("small", tmp_path)
    npz.unlink()
    for name in ("small", "nothing"):
        with refuses("name", name):
            recorded.load(name, tmp_path)


def test_a_writer_that_fails_leaves_the_old_files(tmp_path, monkeypatch):
    recorded.save("one", {"a": np.arange(3)}, {}, tmp_path)

    def failing(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", failing)
    with pytest.raises(OSError, match="disk full"):
        recorded.save("one", {"a": np.arange(4)}, {}, tmp_path)
    assert recorded.load("one", tmp_path)[0]["a"].tolist() == [0, 1, 2]


def test_the_command_records_what_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recorder, "RECORDINGS", {"one": lambda: TWO, "two": lambda: replace(TWO, maps=False)})
    folders = ["--out", str(tmp_path), "--checkpoints", str(tmp_path), "--device", "cpu"]
    recorder.main(["one", "two", *folders, "--sequences", "9"])
    arrays, words = recorded.load("one", tmp_path)
    assert arrays["sequences"].tolist() == [9, 9]
    assert words["runs"][0]["sequences"] == 9
    assert "maps" not in recorded.load("two", tmp_path)[0]
    assert "two: run 2 of 2" in capsys.readouterr().out


def test_the_command_says_what_it_can(capsys):
    with pytest.raises(SystemExit):
        recorder.main(["everything"])
    said = capsys.readouterr().err
    assert all(name in said for name in RECORDINGS)


# What stands in book/recorded


def configs(name: str) -> list[TrainingConfig | GeneralConfig]:
    """As the provenance tells them."""
    _, words = recorded.load(name)
    kind = type(RECORDINGS[name]().runs[0])
    names = {field.name for field in fields(kind)}
    runs = [{key: run[key] for key in names} for run in words["runs"]]
    return [kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in run.items()}) for run in runs]


@pytest.mark.parametrize("name", MADE)
def test_the_files_are_small_and_are_what_the_command_makes(name):
    arrays, words = recorded.load(name)
    assert sum((recorded.HOME / f"{name}.{kind}").stat().st_size for kind in ("npz", "json")) < 600_000
    runs = configs(name)
    assert [run.digest for run in runs] == [run["digest"] for run in words["runs"]]
    assert runs == list(RECORDINGS[name]().runs)
    assert arrays["seed"].tolist() == [run.seed for run in runs]
    assert arrays["loss"].shape == (len(runs), len(arrays["steps"]))
    assert all(np.isfinite(values).all() for values in arrays.values() if values.dtype.kind == "f")
    assert {"what", "made_by", "hardware", "code_sha256", "versions"} <= set(words)


def losses_from_the_start(config: TrainingConfig, steps: int) -> list[float]:
    """Loss at steps 0 to ``steps``, by a loop of our own."""
    generator, weights, velocity = torch.Generator().manual_seed(config.seed_data), config.weights(), {}
    found, sequences = [], None
    for step in range(steps + 1):
        if config.fresh or sequences is None:
            sequences = config.task.sample(config.sequences, generator)
        trained = config.trained if step < steps else ()
        loss, gradients, _ = loss_and_gradients(weights, sequences, trained=trained)
        found.append(loss.item())
        for name, gradient in gradients.items():
            W = getattr(weights, name)
            velocity[name] = config.momentum * velocity.get(name, 0) + gradient + config.weight_decay * W
            weights = weights.replace(**{name: W - config.rate * velocity[name]})
    return found


# Rounding differs from processor to processor, and grows from step to step.
@pytest.mark.parametrize("name", [name for name in MADE if name != "induction-layers"])
def test_the_first_steps_of_each_recorded_run_come_out_again(name):
    arrays, _ = recorded.load(name)
    gap, known = int(arrays["steps"][1]), {}
    for r, config in sorted(enumerate(configs(name)), key=lambda row: (row[1].d, row[1].seed)):
        if config.fresh and gap <= 10 and config.seed == 0 and not config.no_repeat:
            found = losses_from_the_start(config, gap)
            assert arrays["loss"][r, :2] == pytest.approx([found[0], found[-1]], rel=1e-3)
            continue
        start = replace(config, rate=1.0)
        if start not in known:  # the runs of one start stand together: one is kept
            known = {start: evaluation(config, gap == 1 and not config.fresh)}
        loss, gradients, again = known[start]
        assert arrays["loss"][r, 0] == pytest.approx(loss, rel=1e-5)
        if gradients:
            weights = config.weights()
            changed = {name: getattr(weights, name) - config.rate * G for name, G in gradients.items()}
            assert arrays["loss"][r, 1] == pytest.approx(again(weights.replace(**changed)), rel=1e-4)


def evaluation(config: TrainingConfig, differentiate: bool) -> tuple[float, dict, Callable[[Weights], float]]:
    """Loss and gradients at the start on a run's first sequences, and the loss there as a function of the weights."""
    sequences = config.task.sample(config.sequences, torch.Generator().manual_seed(config.seed_data))
    weights = config.weights()
    if config.trained == ("W_O2",) and differentiate:
        features = fixed_features(weights, sequences)
        loss, gradient, _ = features_loss_and_gradient(weights.W_O2, features)
        return loss.item(), {"W_O2": gradient}, lambda now: features_loss_and_gradient(now.W_O2, features)[0].item()
    wanted = config.trained if differentiate else ()
    loss, gradients, _ = loss_and_gradients(weights, sequences, trained=wanted)
    return loss.item(), gradients, lambda now: loss_and_gradients(now, sequences, trained=())[0].item()


@pytest.mark.skipif("induction-layers" not in MADE, reason="not recorded")
def test_the_first_steps_of_the_recorded_general_transformers_come_out_again():
    arrays, _ = recorded.load("induction-layers")
    for r, config in enumerate(configs("induction-layers")):
        steps = 50 if r < 2 else 0
        model, generator = config.model(), torch.Generator().manual_seed(config.seed_data)
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay)
        for step in range(steps + 1):
            batch = config.task.sample(config.sequences, generator)
            loss = torch.nn.functional.cross_entropy(model(batch.inputs)[batch.counts], batch.targets[batch.counts])
            if step in (0, 50):
                at = arrays["steps"].tolist().index(step)
                assert arrays["loss"][r, at] == pytest.approx(loss.item(), rel=1e-5 if step == 0 else 1e-2)
            optimiser.param_groups[0]["lr"] = config.rate * (step + 1) / config.warm_up  # it warms up over 50 steps
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
