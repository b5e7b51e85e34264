"""A rule about where objects may be: the region is a picture."""

from __future__ import annotations

import os
import pathlib

import gin
import numpy as np
import tensorflow as tf
from scipy import ndimage

from asr_tf.checks import check_range
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics
from asr_tf.imaging.windows import interpolate

__all__ = ["InsideRegion"]


@gin.register
class InsideRegion(Constraint):
    """Objects' centres lie in a region: the bright pixels of an image that is as large as the canvas.

    The penalty of a step is the distance of its window's centre from the nearest allowed pixel, interpolated between
    pixels, and counts by the probability that the step is present.
    """

    start = 0.5

    def __init__(
        self,
        path: str | os.PathLike[str] = gin.REQUIRED,
        slack_px: float = 0.5,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule, and reads the image.

        Args:
            path: of a PNG file, `~` allowed; what is at least half as bright as white is allowed.
            slack_px: the distance up to which a finished scene still passes, 0 or more; 0.5 is a pixel's edge.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: no such file, no image, or an image without a bright pixel.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.slack_px = check_range("InsideRegion.slack_px", slack_px, 0.0, float("inf"))
        self.path = str(path)
        allowed = _read(pathlib.Path(path).expanduser())
        self._distances_px = ndimage.distance_transform_edt(~allowed)

    def check(self, num_steps: int, canvas_size: tuple[int, int]) -> None:
        """Raises ValueError if the image isn't as large as the canvas."""
        height, width = self._distances_px.shape
        if (height, width) != tuple(canvas_size):
            raise ValueError(
                f"InsideRegion.path={self.path!r} is {height} x {width} px (height x width), but the canvas is "
                f"{canvas_size[0]} x {canvas_size[1]} px; give an image of that size."
            )

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        return tf.reduce_sum(statistics.presence_probs * self._of_steps(statistics), axis=-1)

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Bool [N], which scenes have a centre outside the region by more than the slack."""
        if not self.can_see(scenes):
            return None
        return tf.reduce_any((self._of_steps(scenes) > self.slack_px) & (scenes.presence_probs > 0.5), axis=-1)

    def _of_steps(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B, T], the distance of each step's centre from the region."""
        places = [
            tf.clip_by_value(centre - 0.5, 0.0, size - 1.0)[..., tf.newaxis]  # a pixel's value sits at its centre
            for centre, size in zip(statistics.centres_px(), self._distances_px.shape, strict=True)
        ]
        return interpolate(tf.constant(self._distances_px, places[0].dtype), *places)[..., 0, 0]


def _read(path: pathlib.Path) -> np.ndarray:
    """Bool [H, W], the bright pixels of an image file."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            allowed = np.asarray(image.convert("L")) >= 128
    except OSError as error:  # Pillow's complaint about what isn't an image is one, too
        raise ValueError(f"InsideRegion.path must be a PNG file that can be read: {error}.") from error
    if not allowed.any():
        raise ValueError(f"InsideRegion.path={str(path)!r} has no bright pixel: no object could be anywhere.")
    return allowed
