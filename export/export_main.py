"""asr_export: writes a trained run as a SavedModel (or for LiteRT) that runs where this package isn't installed.

Example:
  asr_export --workdir=runs/mnist --export_dir=served/asr

writes served/asr/1, and 2 the next time. asr_check_export served/asr tells whether it is whole and right.
"""

from __future__ import annotations

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", None, "Folder of the run; needed.", flag_values=_FLAGS)
flags.DEFINE_string(
    "export_dir", None, "Folder of versions, created if missing; needed.", flag_values=_FLAGS
)
flags.DEFINE_integer(
    "version",
    None,
    "Number of the version, 1 or more; without it, one more than the newest.",
    lower_bound=1,
    flag_values=_FLAGS,
)
flags.DEFINE_enum(
    "format",
    "savedmodel",
    ["savedmodel", "tflite"],
    "savedmodel (infer, sample, render, log_likelihood), or tflite (infer, for LiteRT).",
    flag_values=_FLAGS,
)
flags.DEFINE_boolean(
    "warmup",
    True,
    "Write requests that TensorFlow Serving answers before it takes others; needs asr_tf[export].",
    flag_values=_FLAGS,
)
command_line.define_debug(_FLAGS)


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_export", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "workdir", "the folder of a run")
    command_line.require(_FLAGS, "export_dir", "the folder to put the version in")
    command_line.check_folder(_FLAGS, "export_dir")


def _main() -> None:
    from asr_tf.export import exporter

    folder = exporter.export_run(
        _FLAGS.workdir, _FLAGS.export_dir, _FLAGS.version, _FLAGS.format, _FLAGS.warmup
    )
    print(f"Exported: {folder}\nNext: asr_check_export {_FLAGS.export_dir}")


if __name__ == "__main__":
    run()
