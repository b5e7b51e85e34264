"""`multi_sprites`: scenes of squares, ellipses and hearts that the package draws; needs no file."""

from __future__ import annotations

import pathlib

from asr_tf.data.multi_object import MultiObjectBuilder, paper_configs
from asr_tf.data.originals import Bank
from asr_tf.data.sprites import SHAPES, sprite_bank

__all__ = ["MultiSprites"]


class MultiSprites(MultiObjectBuilder):
    """Squares, ellipses and hearts at any angle on a canvas of 50 x 50 px; test angles are not in training."""

    BUILDER_CONFIGS = paper_configs(canvas_size=(50, 50))
    CLASS_NAMES = SHAPES

    def _bank(self, split: str, manual_dir: pathlib.Path) -> Bank:
        return sprite_bank(split)
