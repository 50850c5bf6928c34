"""Training loop: ``Trainer`` with its epochs and steps, optimisers and schedules; checkpoints lie beside them.

The loop itself stays in the method: ``for epoch in self.train_epochs(...): for batch in epoch: ...``.
"""

from vcil_bench.common.errors import TrainingError as TrainingError

from .optimisers import StepSchedule as StepSchedule
from .optimisers import adagrad as adagrad
from .optimisers import adam as adam
from .optimisers import adamw as adamw
from .optimisers import cosine as cosine
from .optimisers import fuses as fuses
from .optimisers import gradients as gradients
from .optimisers import multistep as multistep
from .optimisers import sgd as sgd
from .optimisers import warmup_cosine_rates as warmup_cosine_rates
from .trainer import Epoch as Epoch
from .trainer import RowEpoch as RowEpoch
from .trainer import Trainer as Trainer
from .trainer import buffers_kept as buffers_kept
from .trainer import evaluating as evaluating
