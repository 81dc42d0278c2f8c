"""The bigram task and the simplified two-layer transformer that learns it: the same memories inside a model.

Section 5.3 and Appendix D of [CSB24], after [BCBJB23].
"""

from amem_core.induction.convex import features_hessian_product, features_sharpness
from amem_core.induction.distributed import Team
from amem_core.induction.fast import loss_and_gradients
from amem_core.induction.features import Features, features_loss_and_gradient, fixed_features
from amem_core.induction.general import GeneralConfig, GeneralTransformer, strongest
from amem_core.induction.general_training import GeneralRun, accuracy_interval, positions_right, train_general
from amem_core.induction.head import (
    hand_made_head,
    logit_margins,
    natural_gaps,
    orthonormal_weights,
    predicted_accuracy,
    score_variances,
    spectral_factors,
)
from amem_core.induction.model import TRAINED, SimplifiedTransformer, Weights, loss_plain
from amem_core.induction.paths import gradient_paths, path_descent
from amem_core.induction.presets import RATES, SCALES, TrainingConfig, preset
from amem_core.induction.probes import ideal_memories, margins, recall, recall_probes
from amem_core.induction.readings import first_time, spikes
from amem_core.induction.task import BigramTask, Sequences, counted_positions
from amem_core.induction.training import Run, train

__all__ = [
    "RATES",
    "SCALES",
    "TRAINED",
    "BigramTask",
    "Features",
    "GeneralConfig",
    "GeneralRun",
    "GeneralTransformer",
    "Run",
    "Sequences",
    "SimplifiedTransformer",
    "Team",
    "TrainingConfig",
    "Weights",
    "accuracy_interval",
    "counted_positions",
    "features_hessian_product",
    "features_loss_and_gradient",
    "features_sharpness",
    "first_time",
    "fixed_features",
    "gradient_paths",
    "hand_made_head",
    "ideal_memories",
    "logit_margins",
    "loss_and_gradients",
    "loss_plain",
    "margins",
    "natural_gaps",
    "orthonormal_weights",
    "path_descent",
    "positions_right",
    "predicted_accuracy",
    "preset",
    "recall",
    "recall_probes",
    "score_variances",
    "spectral_factors",
    "spikes",
    "strongest",
    "train",
    "train_general",
]
