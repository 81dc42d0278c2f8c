"""Training the general transformer: AdamW on fresh sequences, runs that can be stopped, bad input refused."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from amem_core.induction import (
    GeneralConfig,
    GeneralRun,
    GeneralTransformer,
    TrainingConfig,
    counted_positions,
    positions_right,
    train,
    train_general,
)
from amem_core.induction import general_training as module
from tests.oracles import refuses
from tests.refusals import answers_to, is_refusal

SMALL = GeneralConfig(
    d=8, length=16, sequences=6, held_out=5, rate=1e-2, warm_up=2, steps=12, record_every=4, maps_at=(0, 7, 12), shown=3
)
DOUBLE = torch.float64


def quietly(config: GeneralConfig, **options) -> GeneralRun:
    return train_general(config, device="cpu", progress=False, **options)


def same(one: GeneralRun, two: GeneralRun) -> bool:
    """Equal to the last bit."""
    states = one.model.state_dict(), two.model.state_dict()
    weights = all(torch.equal(W, states[1][name]) for name, W in states[0].items())
    history = all(torch.equal(rows, two.history[name]) for name, rows in one.history.items())
    kept = all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("steps", "maps", "predicted"))
    return weights and history and kept


@pytest.mark.parametrize("everywhere", [False, True])
def test_training_is_adamw_on_fresh_sequences(everywhere):
    config = replace(SMALL, everywhere=everywhere, weight_decay=0.1)
    run, model, generator = quietly(config), config.model(), torch.Generator().manual_seed(config.seed_data)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay)
    schedule = [*(1e-2 * (s + 1) / 2 for s in range(2)), *(1e-2 * (12 - s) / 10 for s in range(2, 12))]
    losses = []
    for rate in [*schedule, None]:
        batch = config.task.sample(config.sequences, generator)
        where = torch.ones_like(batch.counts) if everywhere else counted_positions(batch.inputs, batch.triggers)
        loss = F.cross_entropy(model(batch.inputs)[where], batch.targets[where])
        losses.append(loss.item())
        if rate is not None:
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    wanted = torch.tensor([losses[s] for s in run.steps.tolist()])
    torch.testing.assert_close(run.history["loss"], wanted, rtol=1e-4, atol=0)  # a dozen steps in single precision
    for mine, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_records_are_of_the_steps_they_name():
    run = quietly(SMALL, observe=lambda model: {"first": model.embedding.weight[0]})
    assert run.steps.tolist() == [0, 4, 8, 12] and run.map_steps.tolist() == [0, 7, 12]
    held_out = SMALL.task.sample(5, torch.Generator().manual_seed(SMALL.seed_held_out))
    assert torch.equal(run.counted, held_out.counts.sum(1)) and torch.equal(run.tokens, held_out.inputs[3])
    right, loss = positions_right(run.model, held_out)
    right = (right & held_out.counts).sum(1)
    assert torch.equal(run.history["held-out right"][-1], right)
    assert run.history["held-out accuracy"][-1].item() == pytest.approx((right.sum() / run.counted.sum()).item())
    torch.testing.assert_close(run.history["held-out loss"][-1], loss)
    assert torch.equal(run.history["first"][-1], run.model.embedding.weight[0])
    for model, at in ((SMALL.model(), 0), (run.model, -1)):
        logits, maps = model(run.tokens[None], maps=True)
        torch.testing.assert_close(run.maps[at], maps[0].detach())
        assert torch.equal(run.predicted[at], logits[0].argmax(-1))
    assert not torch.equal(run.maps[0], run.maps[1])


def test_the_same_seeds_give_the_same_run_and_others_another():
    run = quietly(SMALL)
    assert same(run, quietly(SMALL))
    for name in ("seed", "seed_data"):
        assert not torch.equal(run.history["loss"], quietly(replace(SMALL, **{name: 9})).history["loss"])


def test_two_layers_learn_what_one_does_not():
    config = GeneralConfig(
        d=32, length=32, sequences=64, held_out=200, rate=2e-2, warm_up=20, steps=200, no_repeat=True
    )
    final = {layers: quietly(replace(config, layers=layers)).history["held-out accuracy"][-1] for layers in (1, 2)}
    assert final[2] > 0.9 and 0.6 > final[1] > 0.3, final


@pytest.mark.parametrize("at", [0, 5, 9, 12])
@pytest.mark.parametrize("feed_forward", [False, True])
def test_a_run_stopped_at_any_step_ends_bit_for_bit_the_same(at, feed_forward, tmp_path, monkeypatch):
    config, path, advance = replace(SMALL, feed_forward=feed_forward), tmp_path / "run.checkpoint", module._advance

    def stop(config, state, *rest):
        if state.step == at:
            raise KeyboardInterrupt
        return advance(config, state, *rest)

    wanted = quietly(config)
    monkeypatch.setattr(module, "_advance", stop)
    with pytest.raises(KeyboardInterrupt):
        quietly(config, checkpoint=path, checkpoint_every=4)
    assert path.exists() == (at >= 4)
    monkeypatch.setattr(module, "_advance", advance)
    assert same(quietly(config, checkpoint=path), wanted)
    monkeypatch.setattr(module, "_advance", None)  # an ended run is read and not run again
    assert same(quietly(config, checkpoint=path), wanted)


def test_checkpoints_that_are_not_this_runs_are_refused_and_stay(tmp_path):
    path = tmp_path / "run.checkpoint"
    quietly(SMALL, checkpoint=path)
    whole = path.read_bytes()
    for change in ({"rate": 2e-2}, {"layers": 1}, {"heads": 2}, {"everywhere": True}, {"maps_at": ()}):
        with refuses("checkpoint", r"run\.checkpoint, of another configuration", "a new name"):
            quietly(replace(SMALL, **change), checkpoint=path)
    simplified = TrainingConfig(d=8, length=16, sequences=6, rate=1.0, steps=2)
    with refuses("checkpoint", "of another configuration", "a new name"):
        train(simplified, device="cpu", progress=False, checkpoint=path)
    path.write_bytes(whole[:-1])
    with refuses("checkpoint", "truncated or damaged", "a whole file"):
        quietly(SMALL, checkpoint=path)
    assert path.read_bytes() == whole[:-1]
    with refuses("checkpoint", "nowhere", "a folder that exists"):
        quietly(SMALL, checkpoint=tmp_path / "nowhere" / "run.checkpoint")


def test_going_on_with_other_observations_is_refused(tmp_path):
    path = tmp_path / "run.checkpoint"
    quietly(SMALL, checkpoint=path)
    held = module.read_checkpoint(path, SMALL.digest)
    assert held["step"] == 13
    state = module._State.at_the_start(SMALL, torch.device("cpu"))
    state.restore(held)
    with refuses("observe", "more", "recorded so far"):
        state.record({name: torch.zeros(()) for name in [*state.history, "more"]})


def test_what_leaves_the_range_is_said_with_its_step():
    with pytest.raises(OverflowError, match=r"^step \d+: loss"):
        quietly(replace(SMALL, rate=1e30))


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("layers", 0), ("d", 0), ("heads", 3), ("heads", 0), ("K", 64), ("length", 1), ("sequences", 0), ("steps", 0),
        ("rate", 0.0), ("rate", float("inf")), ("weight_decay", -1.0), ("warm_up", 13), ("warm_up", -1), ("seed", -1),
        ("record_every", 0), ("maps_at", (13,)), ("maps_at", (3, 3)), ("shown", 5), ("seed_data", 2), ("held_out", 0),
    ],
)  # fmt: skip
def test_bad_configurations_are_refused(argument, change):
    wrong = "seed_held_out" if argument == "seed_data" else argument
    with refuses(wrong):
        replace(SMALL, **{argument: change})


def test_bad_models_and_calls_are_refused():
    with refuses("heads", "3", "divisor"):
        GeneralTransformer(5, 5, 8, heads=3)
    with refuses("tokens", "7", "0 to N-1"):
        GeneralTransformer(7, 10, 8)(torch.tensor([[7]]))
    with refuses("checkpoint_every", "0", ">= 1"):
        quietly(SMALL, checkpoint_every=0)


WRONG_TYPES = [
    ("maps_at", "GeneralConfig(maps_at=[3])"),
    ("maps_at", "GeneralConfig(maps_at=(1.5,))"),
    ("feed_forward", "GeneralConfig(feed_forward=1)"),
    ("everywhere", "GeneralConfig(everywhere=None)"),
    ("no_repeat", "GeneralConfig(no_repeat='no')"),
    ("random_triggers", "GeneralConfig(random_triggers=0)"),
    ("rate", "GeneralConfig(rate='fast')"),
    ("d", "GeneralConfig(d=64.0)"),
    ("layers", "GeneralTransformer(5, 5, 8, layers=1.0)"),
    ("seed", "GeneralTransformer(5, 5, 8, seed=None)"),
    ("tokens", "GeneralTransformer(5, 5, 8)(torch.zeros(3, dtype=torch.int64))"),
    ("config", "train_general({'d': 8})"),
    ("observe", "train_general(GeneralConfig(), observe=3)"),
    ("checkpoint", "train_general(GeneralConfig(), checkpoint=3)"),
    ("chunk", "positions_right(None, None, chunk=1.0)"),
    ("right", "accuracy_interval([1], [2])"),
    ("counted", "accuracy_interval(torch.tensor([1]), torch.tensor([1, 2]))"),
]


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    return answers_to([call for _, call in WRONG_TYPES], "import torch\nfrom amem_core.induction import *\n")


@pytest.mark.parametrize(("argument", "call"), WRONG_TYPES, ids=[call for _, call in WRONG_TYPES])
def test_wrong_types_are_refused(argument, call, answers):
    assert is_refusal(answers[call], argument), answers[call]


def test_digests_differ_with_every_field():
    other = {"seed": 1, "rate": 2e-2, "maps_at": (0,), "everywhere": True, "heads": 2, "no_repeat": True}
    digests = {replace(SMALL, **{name: value}).digest for name, value in other.items()} | {SMALL.digest}
    assert len(digests) == len(other) + 1
    assert len({GeneralConfig(seed=a, seed_data=b).digest for a, b in itertools.product((3, 4), (3, 4))}) == 4
