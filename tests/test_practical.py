"""Practical descent against a plain loop of torch.optim, autograd and torch's own layers."""

import pytest
import torch
from torch import Tensor

from amem_core import AssociationProblem
from amem_core.dynamics import gradient_descent, practical_descent
from amem_core.dynamics.practical import OPTIMISERS
from tests.oracles import cross_entropy, member, refuses

D = torch.float64
PROBLEM = AssociationProblem.spherical(5, 4, 3, seed=2, p=torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=D))
START = torch.randn(3, 3, dtype=D, generator=torch.Generator().manual_seed(3))

ENGINES = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}


class Memory(torch.nn.Module):
    """What a practitioner would write."""

    def __init__(self, problem: AssociationProblem, W0: Tensor, layer_norm: bool) -> None:
        super().__init__()
        self.problem = problem
        self.hidden = torch.nn.Linear(problem.d, problem.d, bias=False, dtype=D)
        self.norm = torch.nn.LayerNorm(problem.d, elementwise_affine=False) if layer_norm else torch.nn.Identity()
        with torch.no_grad():
            self.hidden.weight.copy_(W0)

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.norm(self.hidden(self.problem.E[tokens])) @ self.problem.U.T
        return torch.nn.functional.cross_entropy(logits, self.problem.targets[tokens], reduction="none")


def train(
    problem: AssociationProblem, W0: Tensor, name: str, rate: float, steps: int, layer_norm: bool, batches: list[Tensor]
) -> list[Tensor]:
    """The matrices of a plain training loop, on all tokens with weights p or on batches of tokens."""
    model = Memory(problem, W0, layer_norm)
    engine, options = ENGINES[name]
    optimiser = engine(model.parameters(), lr=rate, **options)
    states = [W0]
    for t in range(steps):
        optimiser.zero_grad()
        loss = model(batches[t]).mean() if batches else problem.p @ model(torch.arange(problem.N))
        loss.backward()
        optimiser.step()
        states.append(model.hidden.weight.detach().clone())
    return states


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", ENGINES)
def test_each_optimiser_is_that_of_torch(name, layer_norm):
    run = practical_descent(PROBLEM, START, optimiser=name, rate=0.1, steps=40, layer_norm=layer_norm)
    states = train(PROBLEM, START, name, 0.1, 40, layer_norm, [])
    # forty smooth steps on numbers of size 1
    assert float((run.W - torch.stack(states)).abs().max()) < 1e-11
    for t in (0, 20, 40):
        assert abs(float(run.loss[t] - cross_entropy(states[t], PROBLEM, layer_norm))) < 1e-11


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_mini_batches_are_means_over_tokens_drawn_from_p(name, layer_norm):
    run = practical_descent(
        PROBLEM, START, optimiser=name, rate=0.1, steps=20, batch_size=3, seed=11, layer_norm=layer_norm
    )
    generator = torch.Generator().manual_seed(11)
    batches = [torch.multinomial(PROBLEM.p, 3, replacement=True, generator=generator) for _ in range(20)]
    states = train(PROBLEM, START, name, 0.1, 20, layer_norm, batches)
    assert float((run.W - torch.stack(states)).abs().max()) < 1e-10


def test_every_optimiser_offered_is_tested():
    assert set(OPTIMISERS) == set(ENGINES)


def test_plain_sgd_is_gradient_descent():
    run = practical_descent(PROBLEM, START, optimiser="sgd", rate=0.7, steps=10)
    assert float((run.W - gradient_descent(PROBLEM, START, rate=0.7, steps=10).W).abs().max()) < 1e-13


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", ENGINES)
def test_members_of_a_batch_train_as_if_alone(name, layer_norm):
    grid = AssociationProblem.two_tokens(torch.tensor([-0.5, 0.3, 0.9], dtype=D), 0.7)
    W0 = torch.randn(2, 1, 2, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    options = {"optimiser": name, "rate": 0.05, "steps": 10, "layer_norm": layer_norm}
    run = practical_descent(grid, W0, **options)
    assert run.loss.shape == (11, 2, 3)
    for i in range(2):
        for k in range(3):
            alone = practical_descent(member(grid, torch.Size([3]), (k,)), W0[i, 0], **options)
            # layer normalisation of two coordinates divides by their difference
            assert float((run.W[:, i, k] - alone.W).abs().max()) < 1e-9


def test_layer_norm_makes_the_scores_blind_to_the_size_of_the_matrix():
    run = practical_descent(PROBLEM, START, optimiser="sgd", rate=0.0, steps=1, layer_norm=True)
    large = practical_descent(PROBLEM, 1e3 * START, optimiser="sgd", rate=0.0, steps=1, layer_norm=True)
    # up to the epsilon of 1e-5 beside the variance
    assert float((run.particles - large.particles).abs().max()) < 1e-2
    assert float((run.particles - START.new_tensor(0)).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("optimiser", {"optimiser": "lion"}),
        ("rate", {"rate": -0.1}),
        ("rate", {"rate": torch.nan}),
        ("rate", {"rate": torch.inf}),
        ("steps", {"steps": 0}),
        ("record_every", {"record_every": -1}),
        ("batch_size", {"batch_size": 0}),
        ("seed", {"seed": -2}),
        ("W0", {"W0": torch.zeros(3, 2, dtype=D)}),
    ],
)
def test_malformed_arguments_are_refused(argument, change):
    with refuses(argument):
        practical_descent(PROBLEM, **{"optimiser": "adam", "rate": 0.1, "steps": 1, **change})


def test_a_state_that_leaves_the_range_is_an_error():
    with pytest.raises(OverflowError, match="range"):
        practical_descent(PROBLEM, optimiser="nesterov", rate=1e308, steps=60)
