"""What a reader would write first: a module, autograd, an optimiser, one configuration at a time."""

import torch

from amem_core import AssociationProblem


class PlainMemory(torch.nn.Module):
    """Scores ``u_j^T W e_x`` of every token."""

    def __init__(self, problem: AssociationProblem) -> None:
        super().__init__()
        self.E, self.U = problem.E, problem.U
        self.W = torch.nn.Parameter(torch.zeros(problem.d, problem.d, dtype=problem.dtype))

    def forward(self) -> torch.Tensor:
        return self.E @ self.W.T @ self.U.T


def train(problem: AssociationProblem, rate: float, steps: int) -> torch.Tensor:
    """The matrix after ``steps`` of SGD on the whole distribution."""
    model = PlainMemory(problem)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(model(), problem.targets, reduction="none")
        (problem.p * losses).sum().backward()
        optimiser.step()
    return model.W.detach()


def large_problem() -> AssociationProblem:
    """N = M = 1,000 in d = 256 dimensions."""
    return AssociationProblem.spherical(1000, 1000, 256, seed=0)
