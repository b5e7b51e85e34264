r"""asr_batch_infer: counts and boxes the objects of many images with an exported model, on Apache Beam.

Example:
  asr_batch_infer --export_dir=exports/mnist --input='scenes/*.tfrecord|pictures/*.png' --output=results

Writes results/objects-*.parquet, a row for each image, and results/_refused-*.jsonl, a line for each image or file that
couldn't be used, with the reason; these stop nothing. results/_SUCCESS is written last. With --format=coco the objects,
their masks included, go to results/objects-coco.json. What comes after `--` are flags of Beam, which say where it runs:
  asr_batch_infer --export_dir=D --input=I --output=O -- --runner=FlinkRunner --flink_master=host:8081
Without them it runs in this process.
"""

from __future__ import annotations

import logging
import os
import sys

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "export_dir", None, "Folder that asr_export wrote, with a folder for each version; needed.", flag_values=_FLAGS
)
flags.DEFINE_integer(
    "version", None, "Version of the model; without it, the newest.", lower_bound=0, flag_values=_FLAGS
)
flags.DEFINE_multi_string(
    "input",
    None,
    "Files or patterns, several of them separated by |; a file of that very name comes first. PNG images, NPY arrays "
    "of one image or many, TFRecords of tf.train.Example with a feature 'image', grey or RGB as the model's signature "
    "says; needed.",
    flag_values=_FLAGS,
)
flags.DEFINE_string("output", None, "Folder for the results, created if missing; needed.", flag_values=_FLAGS)
_FORMATS = ["parquet", "tfrecord", "coco"]
flags.DEFINE_enum(
    "format",
    None,
    _FORMATS,
    "Format of the results; without it, parquet. coco is one JSON with boxes and masks, and needs pycocotools.",
    flag_values=_FLAGS,
)
flags.DEFINE_enum("output_format", None, _FORMATS, "Another name of --format.", flag_values=_FLAGS)
flags.DEFINE_boolean(
    "strict", False, "End with status 1 if any image was refused, after all others are written.", flag_values=_FLAGS
)
command_line.define_debug(_FLAGS)

_END_OF_FLAGS = "--"
_beam_arguments: list[str] = []


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    if _END_OF_FLAGS in sys.argv:
        position = sys.argv.index(_END_OF_FLAGS)
        _beam_arguments[:] = sys.argv[position + 1 :]
        del sys.argv[position:]
    command_line.launch("asr_batch_infer", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "export_dir", "the folder that asr_export wrote")
    command_line.require(_FLAGS, "input", "files or patterns of images, '*.png' for example")
    command_line.require(_FLAGS, "output", "the folder for the results")
    if _FLAGS.format and _FLAGS.output_format:
        raise flags.IllegalFlagValueError("--format and --output_format are the same: give --format alone.")


def _main() -> None:
    try:
        import apache_beam
        import pyarrow
    except ImportError as error:
        raise ValueError(f"asr_batch_infer needs Apache Beam ({error}): pip install 'asr_tf[beam]'") from error
    del apache_beam, pyarrow
    from asr_tf.export.batch import job, matching

    if not _FLAGS.debug:  # of what ends the job, the message is enough
        logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    options = job.parse_options(_beam_arguments)
    output = os.path.expanduser(_FLAGS.output).rstrip("/") or "/"
    model = job.find_model(_FLAGS.export_dir, _FLAGS.version)
    output_format = _FLAGS.format or _FLAGS.output_format or _FORMATS[0]
    written, refused = job.run(model, matching.split_patterns(_FLAGS.input), output, output_format, options)
    faulty = "1 image or file was" if refused == 1 else f"{refused} images or files were"
    print(f"{written} images inferred; {faulty} refused.")
    for line in job.places(output, output_format, written, refused):
        print(line)
    if not written:
        raise ValueError("no image of --input could be used")
    if refused and _FLAGS.strict:
        raise ValueError(f"--strict: {faulty} refused")


if __name__ == "__main__":
    run()
