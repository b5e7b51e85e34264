"""asr_evaluate: holds a trained run against the test split; writes report.json and figures/ into its folder.

To choose settings, give --split=validation, which writes report_validation.json and figures_validation/ and leaves the
test split for the end.

Example:
  asr_evaluate --workdir=runs/mnist
"""

from __future__ import annotations

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", None, "Folder of the run; needed.", flag_values=_FLAGS)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared data sets; without it, the one that the training was given.",
    flag_values=_FLAGS,
)
flags.DEFINE_string(
    "manual_dir",
    None,
    "Folder with original files; without it, the one that the training was given.",
    flag_values=_FLAGS,
)
flags.DEFINE_enum(
    "split",
    "test",
    ["validation", "test"],
    "The scenes that the run is held against: validation, to choose settings by, or test.",
    flag_values=_FLAGS,
)
command_line.define_debug(_FLAGS)

# Key of report.json, how it is shown.
_HEADLINE = (
    ("count_accuracy", "count accuracy", "{:.4f}"),
    ("mean_iou", "mean IoU", "{:.3f}"),
    ("negative_elbo_nats", "-ELBO", "{:.1f} nats an image"),
    ("samples_with_allowed_count", "sampled scenes with an allowed count", "{:.4f}"),
    ("train_seconds", "training", "{:.0f} s"),
)


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_evaluate", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "workdir", "the folder of a run")


def _main() -> None:
    from asr_tf.runs import evaluate as evaluation
    from asr_tf.runs.run_folder import RunFolder

    report = evaluation.evaluate(
        _FLAGS.workdir, data_dir=_FLAGS.data_dir, manual_dir=_FLAGS.manual_dir, split=_FLAGS.split
    )
    for key, name, form in _HEADLINE:
        if report.get(key) is not None:
            print(f"{name}: {form.format(report[key])}")
    report_file, figures = RunFolder(_FLAGS.workdir).evaluation(_FLAGS.split)
    print(f"Report: {report_file}\nFigures: {figures}")


if __name__ == "__main__":
    run()
