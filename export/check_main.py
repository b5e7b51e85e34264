"""asr_check_export: loads an exported model without this package, and holds its answers against those at export.

Example:
  asr_check_export served/asr

The check runs in a process in which asr_tf, keras and tensorflow_probability can't be imported. It prints a verdict a
line, and ends with status 1 where one of them is bad.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "export_dir",
    None,
    "Folder of versions, or of one version; needed, also without the flag's name.",
    flag_values=_FLAGS,
)
flags.DEFINE_integer(
    "version", None, "Version to check; without it, the newest.", lower_bound=1, flag_values=_FLAGS
)
command_line.define_debug(_FLAGS)


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_check_export", __doc__, _FLAGS, _main, _check, positional="export_dir")


def _check() -> None:
    command_line.require(_FLAGS, "export_dir", "the folder of an exported model")


def _main() -> None:
    from asr_tf.export import artifact

    folder = artifact.version_folder(_FLAGS.export_dir, _FLAGS.version)
    script = pathlib.Path(__file__).with_name("check_artifact.py")
    # TensorFlow talks on stderr while it loads; that matters only where there was no verdict.
    done = subprocess.run([sys.executable, str(script), str(folder)], check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        sys.stderr.write(done.stderr)
        print(f"FAIL the process that loads the model ended with status {done.returncode}")
    if done.returncode:
        sys.exit(1)


if __name__ == "__main__":
    run()
