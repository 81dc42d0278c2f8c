"""The simplified transformer: the module is the formula, and the fast form is the module in value and gradient."""

import math

import pytest
import torch

from amem_core.induction import (
    BigramTask,
    Sequences,
    SimplifiedTransformer,
    Weights,
    counted_positions,
    features_loss_and_gradient,
    fixed_features,
    loss_and_gradients,
    loss_plain,
)
from amem_core.induction import chunks as chunks_module
from amem_core.induction import fast as fast_module
from amem_core.induction.model import TENSORS, TRAINED
from tests.oracles import refuses

# relative, of the largest entry; sums of thousands of terms, each rounded a few dozen times
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(rows: list[list[int]], triggers: list[int]) -> Sequences:
    """Chosen sequences, counted by the rule."""
    tokens = torch.tensor(rows)
    q = torch.tensor(triggers).expand(len(rows), -1)
    return Sequences(tokens, q, q, counted_positions(tokens[:, :-1], q))


def reference(weights: Weights, sequences: Sequences) -> tuple[torch.Tensor, dict[str, torch.Tensor], float]:
    """Loss and gradients by autograd on the plain module, and the share of right positions by argmax."""
    model = SimplifiedTransformer(weights)
    value = loss_plain(model, sequences)
    value.backward()
    right = model(sequences.inputs).argmax(-1) == sequences.targets
    return value.detach(), {k: getattr(model, k).grad for k in TRAINED}, right[sequences.counts].double().mean().item()


def agree(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    scale = wanted.abs().max().item()
    return found.dtype == wanted.dtype and float((found - wanted).abs().max()) <= TOLERANCE[wanted.dtype] * scale


def compare(weights: Weights, sequences: Sequences, **options) -> None:
    loss, gradients, accuracy = loss_and_gradients(weights, sequences, **options)
    wanted, by_autograd, right = reference(weights, sequences)
    assert agree(loss, wanted)
    assert list(gradients) == list(TRAINED)
    for name in TRAINED:
        assert by_autograd[name].abs().max() > 0 and agree(gradients[name], by_autograd[name]), name
    # sums of weights 1/n, rounded; right positions of both are the same ones
    assert abs(accuracy.item() - right) < 1e-4


# The module is the formula


def by_the_formula(W: Weights, tokens: list[int]) -> tuple[list[torch.Tensor], list[list[float]]]:
    """Logits position by position, as the definition is written, and the attention of layer 2."""
    h = [W.W_E[z] + W.p[t] for t, z in enumerate(tokens)]
    for W_K, W_O, W_V in ((W.W_K1, W.W_O1, W.W_V1), (W.W_K2, W.W_O2, W.W_V2)):
        new, maps = [], []
        for t in range(len(tokens)):
            scores = [float(h[t] @ (W_K @ h[j])) / (math.sqrt(W.d) if W.scaled else 1.0) for j in range(t + 1)]
            total = sum(math.exp(s) for s in scores)
            maps.append([math.exp(s) / total for s in scores])
            new.append(h[t] + W_O @ (W_V @ sum(a * h[j] for j, a in enumerate(maps[t]))))
        h = new
    return [W.W_U @ x for x in h], maps


@pytest.mark.parametrize("scaled", [True, False])
def test_logits_and_attention_follow_the_formula(scaled):
    weights = Weights.draw(5, 7, 3, seed=0, scaled=scaled, dtype=torch.float64)
    tokens = [4, 0, 0, 2, 1, 4]  # shorter than T
    logits, a1, a2 = SimplifiedTransformer(weights)(torch.tensor([tokens]), maps=True)
    wanted, maps = by_the_formula(weights, tokens)
    torch.testing.assert_close(logits[0], torch.stack(wanted), rtol=1e-12, atol=1e-12)  # a few roundings each
    for t, row in enumerate(maps):
        torch.testing.assert_close(a2[0, t, : t + 1], torch.tensor(row, dtype=torch.float64), rtol=1e-12, atol=0)
    for a in (a1, a2):
        assert (a.triu(1) == 0).all()
        torch.testing.assert_close(a.sum(-1), torch.ones(1, 6, dtype=torch.float64), rtol=1e-14, atol=0)


def test_the_future_is_not_seen():
    model = SimplifiedTransformer(Weights.draw(9, 12, 6, seed=1))
    tokens = torch.randint(9, (3, 12), generator=seeded(2))
    changed = tokens.clone()
    changed[:, 7:] = (tokens[:, 7:] + 1) % 9
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_only_three_matrices_are_trained():
    weights = Weights.draw(5, 8, 4, seed=2)
    model = SimplifiedTransformer(weights)
    assert {name for name, _ in model.named_parameters()} == set(TRAINED)
    with torch.no_grad():
        model.W_K1 += 1.0
    assert torch.equal(model.weights.W_K1, weights.W_K1 + 1)
    assert set(model.state_dict()) == set(TENSORS)


# Drawn weights


@pytest.mark.parametrize(("scheme", "size"), [("code", 1.0), ("unit", 1 / 64)])
def test_scales_of_the_schemes(scheme, size):
    W = Weights.draw(300, 500, 64, seed=3, scheme=scheme, dtype=torch.float64)
    for name in TENSORS:
        X = getattr(W, name)
        n, normal = X.numel(), name in ("W_E", "p")
        variance = size if normal else 1 / (3 * 64)
        # five standard errors of a mean and of a variance; kurtosis 3 and 9/5
        assert abs(X.mean().item()) < 5 * math.sqrt(variance / n)
        assert abs(X.var().item() / variance - 1) < 5 * math.sqrt((2 if normal else 0.8) / n)
        assert normal or X.abs().max() <= 1 / 8


def test_one_seed_gives_the_same_weights_in_every_dtype():
    single, double = (Weights.draw(6, 9, 5, seed=4, dtype=dtype) for dtype in (torch.float32, torch.float64))
    again = Weights.draw(6, 9, 5, seed=seeded(4), zero=("W_K1", "W_O2"), dtype=torch.float64)
    for name in TENSORS:
        assert torch.equal(getattr(double.to(dtype=torch.float32), name), getattr(single, name))
        wanted = torch.zeros_like(double.W_K1) if name in ("W_K1", "W_O2") else getattr(double, name)
        assert torch.equal(getattr(again, name), wanted)


# The fast form is the module


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("options", [{}, {"scheme": "unit"}, {"scaled": False}, {"zero": ("W_K1", "W_K2")}])
def test_loss_and_gradients_are_those_of_autograd(dtype, chunk, options):
    batch = BigramTask.shakespeare(length=75).sample(10, seeded(5))
    assert batch.counts.any(1).all()
    compare(Weights.draw(63, 80, 24, seed=6, dtype=dtype, **options), batch, chunk=chunk)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_at_the_length_and_dimension_of_the_paper(dtype):
    batch = BigramTask.shakespeare().sample(40, seeded(7))
    compare(Weights.draw(63, 256, 64, seed=8, dtype=dtype), batch)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sequences_without_loss_positions_and_absorbed_ones(dtype):
    T = 40
    nothing = list(range(T + 1))  # nothing comes twice
    absorbed = [3] * (T + 1)
    late = [*range(1, T), 5, 7]  # one loss position, the last
    rows = [nothing, absorbed, late, nothing, [4] * 20 + [6] * (T - 19)]
    batch = given(rows, [3, 4, 5])
    assert batch.counts.sum(1).tolist() == [0, T - 1, 1, 0, 19]
    weights = Weights.draw(T + 1, T, 12, seed=9, dtype=dtype)
    for chunk in (None, 1, 2):
        compare(weights, batch, chunk=chunk)
    # sequences without loss positions change nothing
    kept = loss_and_gradients(weights, batch[batch.counts.any(1)])
    found = loss_and_gradients(weights, batch)
    assert agree(found[0], kept[0]) and all(agree(found[1][name], kept[1][name]) for name in TRAINED)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_two_positions_and_one_dimension(dtype, d):
    compare(Weights.draw(4, 2, d, seed=10, dtype=dtype), given([[1, 1, 2], [0, 0, 3], [2, 1, 3]], [0, 1]))
    batch = BigramTask.shakespeare(length=30).sample(6, seeded(11))
    compare(Weights.draw(63, 30, d, seed=12, dtype=dtype), batch)


@pytest.mark.parametrize("T", [3, 15, 16, 17, 33, 65])
def test_lengths_around_the_edges_of_blocks(T):
    batch = BigramTask.shakespeare(length=T).sample(30, seeded(13))
    compare(Weights.draw(63, T, 7, seed=14, dtype=torch.float64), batch, chunk=4)


@pytest.mark.parametrize(("rows", "queries"), [(1, 1), (3, 5), (100, 100)])
def test_any_number_of_blocks(monkeypatch, rows, queries):
    monkeypatch.setattr(fast_module, "ROW_BLOCKS", rows)
    monkeypatch.setattr(chunks_module, "QUERY_BLOCKS", queries)
    batch = BigramTask.shakespeare(length=90).sample(9, seeded(15))
    compare(Weights.draw(63, 90, 8, seed=16, dtype=torch.float64), batch, chunk=4)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_no_loss_position_at_all(dtype):
    batch, weights = given([[0, 1, 2], [2, 1, 0]], [0, 1]), Weights.draw(3, 2, 4, seed=17, dtype=dtype)
    loss, gradients, accuracy = loss_and_gradients(weights, batch)
    wanted, by_autograd, _ = reference(weights, batch)
    assert loss == wanted == 0 and accuracy == 0
    assert all(torch.equal(gradients[k], torch.zeros(4, 4, dtype=dtype)) for k in TRAINED)
    assert all(torch.equal(by_autograd[k], torch.zeros(4, 4, dtype=dtype)) for k in TRAINED)
    features = fixed_features(weights, batch)
    assert features.X.shape == (0, 4)
    assert [x.abs().max().item() for x in features_loss_and_gradient(weights.W_O2, features)] == [0, 0, 0]


@pytest.mark.parametrize("trained", [(), ("W_K1",), ("W_K2",), ("W_O2",), ("W_O2", "W_K1"), ("W_K2", "W_O2")])
def test_some_of_the_gradients(trained):
    batch, weights = BigramTask.shakespeare(length=50).sample(7, seeded(18)), Weights.draw(63, 50, 6, seed=19)
    everything = loss_and_gradients(weights, batch)
    loss, gradients, accuracy = loss_and_gradients(weights, batch, trained=trained)
    assert torch.equal(loss, everything[0]) and torch.equal(accuracy, everything[2])
    assert set(gradients) == set(trained)
    assert all(torch.equal(gradients[name], everything[1][name]) for name in trained)


def test_threads_share_the_work_and_change_nothing():
    batch = BigramTask.shakespeare(length=40).sample(70, seeded(20))
    weights, before = Weights.draw(63, 40, 9, seed=21), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            found.append(loss_and_gradients(weights, batch, chunk=2))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for loss, gradients, accuracy in found[1:]:
        assert torch.equal(loss, found[0][0]) and torch.equal(accuracy, found[0][2])
        assert all(torch.equal(gradients[name], found[0][1][name]) for name in TRAINED)


def test_inputs_stay_as_they_are_and_carry_no_graph():
    batch, weights = BigramTask.shakespeare(length=30).sample(5, seeded(22)), Weights.draw(63, 30, 6, seed=23)
    copies = [X.clone() for X in (batch.tokens, batch.counts, *(getattr(weights, name) for name in TENSORS))]
    learning = weights.replace(W_K1=weights.W_K1.clone().requires_grad_())
    loss, gradients, _ = loss_and_gradients(learning, batch)
    assert not loss.requires_grad and not gradients["W_K1"].requires_grad
    now = (batch.tokens, batch.counts, *(getattr(weights, name) for name in TENSORS))
    assert all(torch.equal(X, Y) for X, Y in zip(copies, now, strict=True))


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_large_weights_give_a_finite_loss(size):
    batch, weights = BigramTask.shakespeare(length=30).sample(5, seeded(24)), Weights.draw(63, 30, 6, seed=25)
    large = weights.replace(**{name: size * getattr(weights, name) for name in TRAINED}).to(dtype=torch.float64)
    loss, gradients, _ = loss_and_gradients(large, batch)
    wanted, by_autograd, _ = reference(large, batch)
    assert loss > 10 and agree(loss, wanted)
    # attention on one position: differences of scores of size 10 d times ``size``, rounded
    for name in TRAINED:
        torch.testing.assert_close(gradients[name], by_autograd[name], rtol=1e-6, atol=1e-6 * float(loss))


def test_what_leaves_the_range_is_said():
    batch, weights = BigramTask.shakespeare(length=30).sample(5, seeded(26)), Weights.draw(63, 30, 6, seed=27)
    with pytest.raises(OverflowError, match="loss"):
        loss_and_gradients(weights.replace(W_K1=3e38 * weights.W_K1.sign()), batch)


# W_O2 alone


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("chunk", [None, 3])
def test_fixed_features_give_the_same_loss_and_gradient(dtype, chunk, monkeypatch):
    monkeypatch.setattr("amem_core.induction.features.ROWS", {"cpu": 100})
    batch, weights = (
        BigramTask.shakespeare(length=60).sample(20, seeded(28)),
        Weights.draw(63, 64, 10, seed=29, dtype=dtype),
    )
    features = fixed_features(weights, batch, chunk=chunk)
    assert len(features.X) == batch.counts.sum() > 200
    for W_O2 in (weights.W_O2, torch.zeros_like(weights.W_O2), 5 * weights.W_O2.T):
        loss, gradient, accuracy = features_loss_and_gradient(W_O2, features)
        wanted, by_autograd, right = reference(weights.replace(W_O2=W_O2), batch)
        assert agree(loss, wanted) and agree(gradient, by_autograd["W_O2"])
        assert abs(accuracy.item() - right) < 1e-6


def test_the_loss_of_the_output_matrix_is_convex():
    batch = BigramTask.shakespeare(length=60).sample(10, seeded(30))
    weights = Weights.draw(63, 60, 8, seed=31, dtype=torch.float64)
    features, generator = fixed_features(weights, batch), seeded(32)
    for _ in range(20):
        A, B = (torch.randn(8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
        (at_a, by_a, _), (at_b, _, _) = (features_loss_and_gradient(X, features) for X in (A, B))
        assert at_b > at_a + ((B - A) * by_a).sum()  # above every tangent


def test_the_order_of_features_is_always_the_same():
    batch, weights = BigramTask.shakespeare(length=40).sample(30, seeded(33)), Weights.draw(63, 40, 5, seed=34)
    one, two = (fixed_features(weights, batch, chunk=2) for _ in range(2))
    assert torch.equal(one.X, two.X) and torch.equal(one.targets, two.targets)


# Bad input; other types and shapes in test_induction_refusals.py


def test_bad_calls_are_refused():
    batch, weights = given([[0, 0, 3]], [0]), Weights.draw(4, 2, 3, seed=35)
    with refuses("tokens", r"\[3\]", "N-1 = 2"):
        loss_and_gradients(Weights.draw(3, 2, 3, seed=35), batch)
    with refuses("tokens", r"\(1, 3\)", "1 to 2"):
        loss_and_gradients(Weights.draw(4, 1, 3, seed=35), batch)
    with refuses("tokens", r"\(1, 3\)", "1 to 2"):
        SimplifiedTransformer(weights)(batch.tokens)
    with refuses("chunk", "0"):
        loss_and_gradients(weights, batch, chunk=0)
    with refuses("trained", "W_V1", "W_K1"):
        loss_and_gradients(weights, batch, trained=("W_V1",))
    with refuses("scheme", "kaiming", "code"):
        Weights.draw(4, 2, 3, seed=0, scheme="kaiming")
    with refuses("zero", "W_E", "W_O2"):
        Weights.draw(4, 2, 3, seed=0, zero=("W_E",))
    with refuses("d", "0"):
        Weights.draw(4, 2, 0, seed=0)
    with refuses("W_K2", "NaN"):
        weights.replace(W_K2=torch.full((3, 3), float("nan")))
