r"""asr_train: learns to count, box and redraw the objects of unlabelled images.

Example:
  asr_train --workdir=runs/mnist --gin_files=models/asr.gin --gin_files=scenes/mnist_count13.gin \
      --max_minutes=15 --gin_bindings='train.batch_size = 64'

The same command again goes on where the run stopped.  A larger --max_minutes or train.num_steps prolongs it, also
where it is finished.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
from collections.abc import Iterator

from absl import flags

from asr_tf.runs import command_line, configuration

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run: configuration, checkpoints, logs. Created if missing; needed.",
    flag_values=_FLAGS,
)
flags.DEFINE_multi_string(
    "gin_files",
    None,
    "A gin file: a path, or a name inside the package such as models/asr.gin; needed.",
    flag_values=_FLAGS,
)
flags.DEFINE_multi_string(
    "gin_bindings",
    [],
    "A line of gin that overrides the files, such as 'train.batch_size = 32'.",
    flag_values=_FLAGS,
)
flags.DEFINE_integer(
    "seed",
    0,
    "Seed of weights, batches and random numbers, 0 or more.",
    lower_bound=0,
    upper_bound=2**31 - 1,
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "max_minutes",
    None,
    "Minutes of training, above 0; evaluation and compilation are left out, and the learning rate's schedule "
    "fits itself to it. Without it, train.num_steps updates are taken (20,000 unless bound). More than before "
    "prolongs a run.",
    flag_values=_FLAGS,
)
flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets; without it, TFDS's own.", flag_values=_FLAGS
)
flags.DEFINE_string(
    "manual_dir",
    None,
    "Folder with original files, such as the four MNIST idx files.",
    flag_values=_FLAGS,
)
command_line.define_debug(_FLAGS)


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_train", __doc__, _FLAGS, _main, _check, tuned=False)


def _check() -> None:
    command_line.require(_FLAGS, "workdir", "the folder of the run")
    command_line.require(_FLAGS, "gin_files", "models/asr.gin and a scenes/*.gin, for example")
    if _FLAGS.max_minutes is not None and not 0.0 < _FLAGS.max_minutes < math.inf:
        raise flags.IllegalFlagValueError(f"--max_minutes must be above 0 and finite, got {_FLAGS.max_minutes}")
    for name in _FLAGS.gin_files:
        configuration.find_file(name)


def _main() -> None:
    from asr_tf.runs.run_folder import RunFolder
    from asr_tf.training import fit
    from asr_tf.training.callbacks import headline

    # A run's config.gin lies beside the note of where its modules are.
    runs = [RunFolder(configuration.find_file(name).parent) for name in _FLAGS.gin_files]
    modules = [folder for run in runs for folder in run.read_info().get("module_folders", [])]
    configuration.parse(_FLAGS.gin_files, _FLAGS.gin_bindings, modules)
    configuration.make_absolute("data.path")
    given = {name: _FLAGS[name].value for name in ("seed", "max_minutes", "data_dir", "manual_dir")}
    for setting in (*(f"train.{name}" for name in given), "ASRModel.seed", "ImageVAE.seed"):
        name = setting.partition(".")[2]
        if (bound := configuration.bound(setting, given[name])) != given[name]:
            raise configuration.ConfigurationError(
                f"{setting} is bound to {bound!r}, but the flag decides: give --{name}={bound}."
            )
    with _ends_as_with_ctrl_c():
        info = fit.train(_FLAGS.workdir, **given)
    was = "was finished already" if info.get("already_finished") else "finished"
    workdir = shlex.quote(_FLAGS.workdir)
    more = "A larger --max_minutes or train.num_steps prolongs it.\n" if info.get("already_finished") else ""
    print(
        f"Training {was}: {info['train_seconds'] / 60.0:.1f} minutes of training; {headline(info['last_report'])}.\n"
        f"{more}The run lies in {_FLAGS.workdir}: checkpoints/, metrics.jsonl, config.gin, logs/ (TensorBoard).\n"
        f"Next: asr_evaluate --workdir={workdir} and asr_sample --workdir={workdir}"
    )


@contextlib.contextmanager
def _ends_as_with_ctrl_c() -> Iterator[None]:
    """Within it, what asks the process to end, such as a scheduler, interrupts: training saves what it has reached."""
    asking = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]

    def interrupt(*_: object) -> None:
        for number in asking:  # `timeout` sends it twice: the second one would interrupt the saving
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in asking:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in asking:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    run()
