"""Arguments of the wrong type are refused by ``ValueError`` too, without the shape checker."""

import pytest

from tests.refusals import answers_to, is_refusal

#: the argument that the error must name, and the call
CALLS = [
    ("N", "AssociationProblem.orthonormal(2.5)"),
    ("N", "AssociationProblem.orthonormal(True)"),
    ("d", "AssociationProblem.orthonormal(2, 2, '3')"),
    ("seed", "AssociationProblem.spherical(2, 2, 2, seed='0')"),
    ("seed", "AssociationProblem.gaussian(2, 2, 2, seed=None)"),
    ("seed", "AssociationProblem.gaussian(2, 2, 2, seed=1.0)"),
    ("exponent", "zipf_frequencies(3, 'steep')"),
    ("N", "zipf_frequencies(3.0)"),
    ("W", "loss([[0.0]], problem)"),
    ("W", "gradient(None, problem)"),
    ("K_E", "ParticleSystem([[1.0]], eye, targets, half)"),
    ("targets", "ParticleSystem(eye, eye, [0, 1], half)"),
    ("w", "system.step([[0.0]], 1.0)"),
    ("w", "system.velocity(torch.zeros(2, 2, dtype=torch.int64))"),
    ("rate", "system.step(eye, 'fast')"),
    ("rate", "system.step(eye, None)"),
    ("C", "system.particles(eye, None)"),
    ("W0", "gradient_descent(problem, [[0.0]], rate=1.0, steps=1)"),
    ("rate", "gradient_descent(problem, rate='fast', steps=1)"),
    ("rate", "gradient_descent(problem, rate=None, steps=1)"),
    ("rate", "gradient_descent(problem, rate=True, steps=1)"),
    ("rate", "gradient_descent(problem, rate=lambda t: 'fast', steps=1)"),
    ("rate", "gradient_descent(problem, rate=1j, steps=1)"),
    ("steps", "gradient_descent(problem, rate=1.0, steps=1.5)"),
    ("steps", "gradient_descent(problem, rate=1.0, steps='2')"),
    ("record_every", "gradient_descent(problem, rate=1.0, steps=2, record_every=None)"),
    ("space", "gradient_descent(problem, rate=1.0, steps=1, space=None)"),
    ("batch_size", "stochastic_gradient_descent(problem, rate=1.0, steps=1, batch_size=2.0, seed=0)"),
    ("seed", "stochastic_gradient_descent(problem, rate=1.0, steps=1, batch_size=2, seed=None)"),
    ("reduction", "stochastic_gradient_descent(problem, rate=1.0, steps=1, batch_size=2, seed=0, reduction=None)"),
    ("duration", "stochastic_gradient_flow(problem, duration='1', steps=1, sigma=1.0, seed=0)"),
    ("sigma", "stochastic_gradient_flow(problem, duration=1.0, steps=1, sigma=None, seed=0)"),
    ("noise", "stochastic_gradient_flow(problem, duration=1.0, steps=1, sigma=1.0, seed=0, noise=None)"),
    ("optimiser", "practical_descent(problem, optimiser=None, rate=1.0, steps=1)"),
    ("rate", "practical_descent(problem, optimiser='sgd', rate='fast', steps=1)"),
    ("rate", "practical_descent(problem, optimiser='sgd', rate=torch.ones(2), steps=1)"),
    ("tolerance", "gradient_flow(problem, times=torch.ones(1), tolerance='tight')"),
    ("times", "gradient_flow(problem, times='late')"),
    ("W", "hessian([[0.0]], problem)"),
    ("W", "sharpness(None, problem)"),
    ("tolerance", "sharpness(eye, problem, tolerance='tight')"),
    ("tolerance", "sharpness(eye, problem, tolerance=True)"),
    ("V", "hessian_vector_product(eye, problem, [[0.0]])"),
    ("V", "hessian_vector_product(eye, problem, eye.long())"),
    ("N", "AssociationProblem.circle(3.0, seed=0)"),
    ("W", "reading([[0.0]], problem)"),
    ("v", "matrix_of_reading([0.0], problem)"),
    ("latest", "flow_hitting_time(problem, latest='late')"),
    ("weights", "predicted_weighted_recall([1.0], targets, 2)"),
    ("tokens", "predicted_weighted_recall(half, half, 2)"),
    ("alpha", "slow_amplitude('-1/2', 0.75)"),
    ("nodes", "mean_hessian(eye, eye, problem, nodes=8.0)"),
    ("directions", "sharpness_map(problem, [eye, eye], half, half)"),
    ("a", "sharpness_map(problem, planar_directions(problem), [0.0], half)"),
    ("origin", "sharpness_map(problem, planar_directions(problem), half, half, 0.0)"),
]

PREPARATION = """
import torch
from amem_core import *
from amem_core.curvature import mean_hessian
from amem_core.dynamics import *
from amem_core.landscape import *
from amem_core.storage import predicted_weighted_recall
from amem_core.two_memories import slow_amplitude

eye, half, targets = torch.eye(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64), torch.arange(2)
problem = AssociationProblem(eye, eye, targets, half)
system = ParticleSystem.of(problem)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    return answers_to([call for _, call in CALLS], PREPARATION)


@pytest.mark.parametrize(("argument", "call"), CALLS, ids=[call for _, call in CALLS])
def test_the_error_names_argument_value_and_what_is_allowed(argument, call, answers):
    assert is_refusal(answers[call], argument), answers[call]
