"""asr_score: scores what any model found against the truth; writes every metric that the arrays allow.

Both files are npz archives with the arrays count [N], boxes [N, rows, 4] and masks [N, rows, H, W] (uint8 or float);
that of what was found may have scores [N, rows] too.  All but count may be missing.  The first `count` rows of an image
are present.

Example:
  asr_score --truth=t.npz --found=f.npz --output=s.json
"""

from __future__ import annotations

import json
import pathlib

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string("truth", None, "File of the true arrays, npz; needed.", flag_values=_FLAGS)
flags.DEFINE_string("found", None, "File of what was found, npz; needed.", flag_values=_FLAGS)
flags.DEFINE_string("output", None, "File for the scores, JSON; needed.", flag_values=_FLAGS)
command_line.define_debug(_FLAGS)


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_score", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "truth", "the file of the true arrays")
    command_line.require(_FLAGS, "found", "the file of what was found")
    command_line.require(_FLAGS, "output", "the file for the scores")
    path = pathlib.Path(_FLAGS.output).expanduser().absolute()
    if not path.parent.is_dir():
        raise flags.IllegalFlagValueError(f"--output: there is no folder {path.parent}.")
    if path.is_dir():
        raise flags.IllegalFlagValueError(f"--output: {path} is a folder; give the name of a file in it.")


def _main() -> None:
    from asr_tf.evaluation.score import read_arrays, score
    from asr_tf.runs.files import json_ready, write_whole

    found, truth = (read_arrays(pathlib.Path(path).expanduser()) for path in (_FLAGS.found, _FLAGS.truth))
    scores = json_ready(score(found, truth))
    path = pathlib.Path(_FLAGS.output).expanduser().absolute()
    write_whole(path, json.dumps(scores, indent=2, allow_nan=False) + "\n")
    for name, value in scores.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    run()
