"""asr_sample: draws scenes from a trained run; writes samples.png (a grid) and samples.npz (images, counts, boxes).

Example:
  asr_sample --workdir=runs/mnist --num_samples=64 --seed=0 --num_objects=3

With --format it writes a labelled data set instead, for training a detector: images with boxes, masks and counts.
  asr_sample --workdir=runs/mnist --num_samples=100000 --format=coco --output=scenes
The same command goes on where it was interrupted.
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
    "num_samples", 64, "Scenes to draw, 1 or more.", lower_bound=1, upper_bound=2**31 - 1, flag_values=_FLAGS
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
flags.DEFINE_bool(
    "obey",
    False,
    "Draw scenes that break one of the model's rules again, 100 times at most; what is written breaks none.",
    flag_values=_FLAGS,
)
flags.DEFINE_enum(
    "format",
    None,
    ["coco", "tfds", "tfrecord", "yolo"],
    "Write a labelled data set in this format.",
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "least_share",
    0.5,
    "Share of a pixel from which on it belongs to an object's mask in a data set; with less, boxes are wider.",
    lower_bound=0.01,
    upper_bound=1.0,
    flag_values=_FLAGS,
)
flags.DEFINE_string(
    "output",
    None,
    "Folder to write to; without it, samples/ in --workdir, or samples/FORMAT there. A data set needs a new folder, or "
    "one that the same command has begun.",
    flag_values=_FLAGS,
)
command_line.define_debug(_FLAGS)

_CHUNK = 256  # scenes drawn at once: bounds the memory, whatever --num_samples
_MOST_IN_PICTURE = 256


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_sample", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "workdir", "the folder of a run")
    command_line.check_folder(_FLAGS, "output")


def _main() -> None:
    from asr_tf.runs.run_folder import RunFolder, restore_model

    folder = RunFolder(_FLAGS.workdir)
    folder.check_is_run()
    samples = folder.samples / _FLAGS.format if _FLAGS.format else folder.samples
    target = RunFolder(_FLAGS.output or samples)
    target.check_writable()
    model, _ = restore_model(folder.path)
    needed = {"--format": _FLAGS.format, "--num_objects": _FLAGS.num_objects is not None, "--obey": _FLAGS.obey}
    if not model.finds_objects and any(needed.values()):
        flag = next(flag for flag, is_given in needed.items() if is_given)
        raise ValueError(
            f"{flag} needs a model of objects; {folder.path} holds a plain autoencoder: leave the flag out."
        )
    if _FLAGS.format:
        _write_dataset(model, folder.config.read_text(encoding="utf-8"), target.path)
    else:
        _write_samples(model, target.path)


def _write_samples(model: Any, target: pathlib.Path) -> None:
    """Writes the picture and the arrays."""
    import keras
    import numpy as np
    from PIL import Image

    from asr_tf.evaluation import tiles
    from asr_tf.runs.files import replacing

    options = {} if _FLAGS.num_objects is None else {"num_objects": _FLAGS.num_objects}
    options |= {"obey": True} if _FLAGS.obey else {}
    chunks = []
    for start in range(0, _FLAGS.num_samples, _CHUNK):
        size = min(_CHUNK, _FLAGS.num_samples - start)
        scenes = model.sample(size, seed=(_FLAGS.seed, start), **options)
        chunks.append({name: keras.ops.convert_to_numpy(value) for name, value in scenes.items()})
    rates = [chunk.pop("acceptance_rate") for chunk in chunks] if _FLAGS.obey else []
    drawn = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    shown = {name: values[:_MOST_IN_PICTURE] for name, values in drawn.items()}
    picture = tiles.draw_boxes_grid(shown["images"], shown.get("boxes"), shown.get("count"))
    with replacing(target / "samples.png") as file:
        Image.fromarray(picture).save(file, "png")
    names = {"images": "images", "count": "counts", "boxes": "boxes"}
    kept: dict[str, Any] = {names[name]: values for name, values in drawn.items() if name in names}
    with replacing(target / "samples.npz") as file:
        np.savez_compressed(file, **kept)
    numbers = np.bincount(drawn["count"]).tolist() if model.finds_objects else []
    print(f"{len(drawn['images'])} scenes{_shares(numbers)}.")
    if rates:
        draws = sum(len(chunk["images"]) / rate for chunk, rate in zip(chunks, rates, strict=True))
        print(f"None breaks a rule: {len(drawn['images']) / draws:.1%} of {draws:.0f} scenes drawn obeyed.")
    print(f"Picture: {target / 'samples.png'}")
    print(f"Arrays: {target / 'samples.npz'}")


def _write_dataset(model: Any, config: str, target: pathlib.Path) -> None:
    """Writes a labelled data set, or what is missing of it."""
    from asr_tf.labelled.sampling import sample_dataset

    asked = _FLAGS.format, _FLAGS.num_samples, _FLAGS.seed, _FLAGS.num_objects
    tally = sample_dataset(model, target, *asked, config, _FLAGS.least_share, _FLAGS.obey)
    print(f"{tally.scenes} scenes{_shares(tally.scenes_with)}, {tally.objects} labelled objects.")
    if tally.left_out:
        print(f"{tally.left_out} more objects can't be seen: they are counted, but not labelled.")
    print(f"Data set: {target}")


def _shares(scenes_with: list[int]) -> str:
    """How many scenes have 0, 1, ... objects, in words; nothing for a model without objects."""
    parts = (f"{number} with {count}" for count, number in enumerate(scenes_with) if number)
    return f" (objects: {', '.join(parts)})" if scenes_with else ""


if __name__ == "__main__":
    run()
