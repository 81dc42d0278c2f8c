"""The bigram task and the simplified two-layer transformer that learns it: the same memories inside a model.

Section 5.3 and Appendix D of [CSB24], after [BCBJB23].
"""

from amem_core.induction.distributed import Team
from amem_core.induction.fast import loss_and_gradients
from amem_core.induction.features import Features, features_loss_and_gradient, fixed_features
from amem_core.induction.model import TRAINED, SimplifiedTransformer, Weights, loss_plain
from amem_core.induction.presets import RATES, SCALES, TrainingConfig, preset
from amem_core.induction.probes import ideal_memories, margins, recall, recall_probes
from amem_core.induction.task import BigramTask, Sequences, counted_positions
from amem_core.induction.training import Run, train

__all__ = [
    "RATES",
    "SCALES",
    "TRAINED",
    "BigramTask",
    "Features",
    "Run",
    "Sequences",
    "SimplifiedTransformer",
    "Team",
    "TrainingConfig",
    "Weights",
    "counted_positions",
    "features_loss_and_gradient",
    "fixed_features",
    "ideal_memories",
    "loss_and_gradients",
    "loss_plain",
    "margins",
    "preset",
    "recall",
    "recall_probes",
    "train",
]
