"""Arguments of the wrong type, refused by ``ValueError`` too, in a process without the shape checker.

With it, the checker would speak first; a reader's notebook does not have it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

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
    ("directions", "sharpness_map(problem, [eye, eye], half, half)"),
    ("a", "sharpness_map(problem, planar_directions(problem), [0.0], half)"),
    ("origin", "sharpness_map(problem, planar_directions(problem), half, half, 0.0)"),
]

SCRIPT = """
import json, sys
import torch
from amem_core import *
from amem_core.dynamics import *
from amem_core.landscape import *

eye, half, targets = torch.eye(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64), torch.arange(2)
problem = AssociationProblem(eye, eye, targets, half)
system = ParticleSystem.of(problem)
answers = []
for call in json.load(sys.stdin):
    try:
        eval(call)
        answers.append("nothing was raised")
    except Exception as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    calls = [call for _, call in CALLS]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        input=json.dumps(calls), capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return dict(zip(calls, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize(("argument", "call"), CALLS, ids=[call for _, call in CALLS])
def test_the_error_names_argument_value_and_what_is_allowed(argument, call, answers):
    assert answers[call].startswith(f"ValueError: {argument}: found ")
    assert ", allowed: " in answers[call]
