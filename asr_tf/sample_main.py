"""asr_sample: draws scenes from a trained run; writes samples.png (a grid) and samples.npz (images, counts, boxes).

Example:
  asr_sample --workdir=runs/mnist --num_samples=64 --seed=0 --num_objects=3
"""

from __future__ import annotations

import pathlib
from typing import Any

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", None, "Folder of the run; needed.", flag_values=_FLAGS)
flags.DEFINE_integer(
    "num_samples", 64, "Scenes to draw, 1 or more.", lower_bound=1, flag_values=_FLAGS
)
flags.DEFINE_integer(
    "seed",
    0,
    "Seed, 0 or more; the same seed draws the same scenes.",
    lower_bound=0,
    upper_bound=2**31 - 1,
    flag_values=_FLAGS,
)
flags.DEFINE_integer(
    "num_objects",
    None,
    "Objects in every scene, 0 or more; without it, the model draws the count too.",
    lower_bound=0,
    flag_values=_FLAGS,
)
flags.DEFINE_string(
    "output", None, "Folder to write to; without it, samples/ in --workdir.", flag_values=_FLAGS
)
command_line.define_debug(_FLAGS)

_CHUNK = 256  # scenes drawn at once: bounds the memory, whatever --num_samples
_MOST_IN_PICTURE = 256


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_sample", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "workdir", "the folder of a run")


def _main() -> None:
    import keras
    import numpy as np
    from PIL import Image

    from asr_tf.evaluation import tiles
    from asr_tf.runs.files import replacing
    from asr_tf.runs.run_folder import RunFolder, restore_model

    folder = RunFolder(_FLAGS.workdir)
    folder.check_is_run()
    target = RunFolder(_FLAGS.output or folder.samples)
    target.check_writable()
    model, _ = restore_model(folder.path)
    options = {} if _FLAGS.num_objects is None else {"num_objects": _FLAGS.num_objects}
    if options and not model.finds_objects:
        raise ValueError(
            f"--num_objects needs a model of objects; {folder.path} holds a plain autoencoder: leave the flag out."
        )
    chunks = []
    for start in range(0, _FLAGS.num_samples, _CHUNK):
        size = min(_CHUNK, _FLAGS.num_samples - start)
        scenes = model.sample(size, seed=(_FLAGS.seed, start), **options)
        chunks.append({name: keras.ops.convert_to_numpy(value) for name, value in scenes.items()})
    drawn = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    shown = {name: values[:_MOST_IN_PICTURE] for name, values in drawn.items()}
    picture = tiles.draw_boxes_grid(shown["images"], shown.get("boxes"), shown.get("count"))
    with replacing(target.path / "samples.png") as file:
        Image.fromarray(picture).save(file, "png")
    names = {"images": "images", "count": "counts", "boxes": "boxes"}
    kept: dict[str, Any] = {names[name]: values for name, values in drawn.items() if name in names}
    with replacing(target.path / "samples.npz") as file:
        np.savez_compressed(file, **kept)
    shares = ""
    if model.finds_objects:
        counts, numbers = np.unique(drawn["count"], return_counts=True)
        parts = (f"{n} with {count}" for count, n in zip(counts, numbers, strict=True))
        shares = f" (objects: {', '.join(parts)})"
    print(f"{len(drawn['images'])} scenes{shares}.")
    print(f"Picture: {pathlib.Path(target.path, 'samples.png')}")
    print(f"Arrays: {pathlib.Path(target.path, 'samples.npz')}")


if __name__ == "__main__":
    run()
