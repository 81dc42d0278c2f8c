"""Wrong types and shapes are refused by ``ValueError``, without the shape checker, which would speak first."""

import pytest

from tests.refusals import answers_to, is_refusal

#: the argument that the error must name, and the call
CALLS = [
    ("bigram", "BigramTask(mix.float(), half, one)"),
    ("bigram", "BigramTask(torch.full((3, 3), 1 / 3, dtype=torch.float64), half, one)"),
    ("bigram", "BigramTask([[1.0]], half, one)"),
    ("unigram", "BigramTask(mix, None, one)"),
    ("unigram", "BigramTask(mix, mix, one)"),
    ("unigram", "BigramTask(mix, half[:1], one)"),
    ("triggers", "BigramTask(mix, half, [0])"),
    ("triggers", "BigramTask(mix, half, half)"),
    ("no_repeat", "BigramTask(mix, half, one, no_repeat=1)"),
    ("length", "BigramTask(mix, half, one, length=2.0)"),
    ("K", "BigramTask.shakespeare(K='5')"),
    ("size", "task.sample(2.0, torch.Generator())"),
    ("generator", "task.sample(2, 0)"),
    ("tokens", "Sequences(None, rows, rows, counts)"),
    ("tokens", "Sequences(rows.int(), rows, rows, counts)"),
    ("triggers", "Sequences(rows, rows[0], rows, counts)"),
    ("outputs", "Sequences(rows, rows, rows[:, :1], counts)"),
    ("counts", "Sequences(rows, rows, rows, rows)"),
    ("W_E", "weights.replace(W_E=None)"),
    ("W_E", "weights.replace(W_E=torch.ones(3))"),
    ("W_K1", "weights.replace(W_K1=weights.W_K1.double())"),
    ("W_K1", "weights.replace(W_K1=weights.W_K1[:1])"),
    ("W_U", "weights.replace(W_U=weights.W_U[:1])"),
    ("p", "weights.replace(p=torch.ones(3, 5))"),
    ("scaled", "weights.replace(scaled=None)"),
    ("N", "Weights.draw('2', 2, 2, 0)"),
    ("seed", "Weights.draw(2, 2, 2, None)"),
    ("zero", "Weights.draw(2, 2, 2, 0, zero=['W_K1'])"),
    ("tokens", "model(rows.int())"),
    ("tokens", "model(rows[0])"),
    ("chunk", "loss_and_gradients(weights, batch, chunk=2.0)"),
    ("trained", "loss_and_gradients(weights, batch, trained='W_K1')"),
    ("tf32", "loss_and_gradients(weights, batch, tf32=1)"),
    ("chunk", "fixed_features(weights, batch, chunk='all')"),
    ("W_O2", "features_loss_and_gradient(torch.ones(3, 3), fixed_features(weights, batch))"),
    ("W_O2", "features_loss_and_gradient(None, fixed_features(weights, batch))"),
    ("X", "Features(torch.ones(3), torch.ones(3, 2), rows[0], torch.ones(2, 4))"),
    ("X", "Features(torch.ones(2, 3), torch.ones(2, 2), rows[0, :2], torch.ones(2, 4))"),
    ("base", "Features(torch.ones(2, 4), torch.ones(2, 3), rows[0, :2], torch.ones(2, 4))"),
    ("targets", "Features(torch.ones(2, 4), torch.ones(2, 2), rows[0], torch.ones(2, 4))"),
    ("targets", "Features(torch.ones(2, 4), torch.ones(2, 2), torch.ones(2), torch.ones(2, 4))"),
    ("targets", "Features(torch.ones(2, 4), torch.ones(2, 2), torch.tensor([0, 2]), torch.ones(2, 4))"),
]

PREPARATION = """
import torch
from amem_core.induction import *

half, one = torch.full((2,), 0.5, dtype=torch.float64), torch.tensor([1])
mix, rows = half.expand(2, 2), torch.zeros(2, 3, dtype=torch.int64)
counts = torch.tensor([[False, True], [False, True]])
task = BigramTask(mix, half, one, length=2)
batch = Sequences(rows, rows[:, :1], rows[:, :1], counts)
weights = Weights.draw(2, 3, 4, 0)
model = SimplifiedTransformer(weights)
loss_and_gradients(weights, batch)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    return answers_to([call for _, call in CALLS], PREPARATION)


@pytest.mark.parametrize(("argument", "call"), CALLS, ids=[call for _, call in CALLS])
def test_the_error_names_argument_value_and_what_is_allowed(argument, call, answers):
    assert is_refusal(answers[call], argument), answers[call]
