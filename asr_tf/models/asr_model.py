"""The model as Keras trains it: the bound less the penalties of the declared constraints.

AIR, AIR-pPrior and ASR are settings of this one class: the prior ("air" or "autoregressive") and the constraints.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923,
    section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asr_tf.constraints import Constraint
from asr_tf.models.bound_model import configurable_model
from asr_tf.models.scene_model import SceneModel
from asr_tf.scene import ObjectiveTerms

__all__ = ["ASRModel"]


@configurable_model
class ASRModel(SceneModel):
    """Attend-Infer-Repeat with amortized structural regularization.

    Learning goes through Keras, see `asr_tf.models.bound_model.BoundModel`.

    Attributes:
        constraints: the declared knowledge, a tuple of `Constraint`.
    """

    def __init__(
        self,
        *,
        constraints: Sequence[Constraint] = (),
        clipnorm: float | None = 1.0,
        num_steps: int = 4,
        **settings: Any,
    ):
        """Initializes the model.

        Args:
            constraints: the knowledge that training enforces.
            clipnorm: bound of each variable's gradient norm in `train_step`, None for no bound.  (The optimizer's own
                would compute every norm a second time.)
            num_steps: T, the most objects in a scene.
            **settings: of `SceneModel`.

        Raises:
            ValueError, TypeError: a setting is out of range, or a constraint can't hold with `num_steps`.
        """
        super().__init__(num_steps=num_steps, **settings)
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise TypeError(
                    f"ASRModel.constraints must hold Constraint objects, got {constraint!r}."
                )
            constraint.check(num_steps)

        self._prepare_training(ObjectiveTerms._fields, constraints, clipnorm)
