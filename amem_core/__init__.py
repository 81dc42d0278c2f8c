"""How gradient descent writes, spoils and retrieves associative memories.

The package behind the executable book *Associative memories under gradient descent*.
A linear layer ``W`` between fixed embeddings, trained with softmax cross-entropy, stores
associations ``x -> f*(x)`` as outer products [CSB24]. Letters used everywhere:

=====  ==========================================================
``N``  number of input tokens
``M``  number of classes
``d``  dimension of the embeddings
``T``  number of recorded times
``B``  batch size
=====  ==========================================================

[CSB24]: V. Cabannes, B. Simsek, A. Bietti, *Learning Associative Memories with Gradient
Descent*, ICML 2024.
"""

from amem_core.curvature import hessian, hessian_vector_product, sharpness
from amem_core.memory import (
    gradient,
    log_probabilities,
    loss,
    margins,
    predictions,
    scores,
    tightest_margin,
    zero_one_loss,
)
from amem_core.particles import ParticleSystem
from amem_core.problem import AssociationProblem, zipf_frequencies

__version__ = "0.1.0"

__all__ = [
    "AssociationProblem",
    "ParticleSystem",
    "gradient",
    "hessian",
    "hessian_vector_product",
    "log_probabilities",
    "loss",
    "margins",
    "predictions",
    "scores",
    "sharpness",
    "tightest_margin",
    "zero_one_loss",
    "zipf_frequencies",
]
