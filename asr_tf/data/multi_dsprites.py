"""`multi_dsprites`: scenes of dSprites shapes, from the dSprites file in `manual_dir`."""

from __future__ import annotations

import pathlib

from asr_tf.data.multi_object import MultiObjectBuilder, paper_configs
from asr_tf.data.originals import DSPRITES_NAMES, Bank, read_dsprites
from asr_tf.data.sprites import SHAPES

__all__ = ["MultiDsprites"]

# Every fifth orientation is for test: 8 of 40.  The last is the same as the first (a full turn): both are in training.
_HELD_OUT_EVERY = 5
_HELD_OUT_AT = 2


class MultiDsprites(MultiObjectBuilder):
    """Sprites of dSprites on a canvas of 64 x 64 px; test orientations are not in training."""

    BUILDER_CONFIGS = paper_configs(canvas_size=(64, 64))
    CLASS_NAMES = SHAPES
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {DSPRITES_NAMES[0]} in manual_dir."

    def _bank(self, split: str, manual_dir: pathlib.Path) -> Bank:
        bank, orientations = read_dsprites(manual_dir)
        held_out = orientations % _HELD_OUT_EVERY == _HELD_OUT_AT
        rows = held_out if split == "test" else ~held_out
        return Bank(bank.images[rows], bank.labels[rows])
