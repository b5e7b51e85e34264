"""A job from start to end: checks what can be checked before it runs, runs it, and tells what came of it.

Contract: what is wrong with the model, the patterns, the output or Beam's flags is one line before anything runs.  What
comes of a job is in its output as a whole or not at all, see `output`.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState
from asr_tf.export.batch import coco_json, matching, pipeline
from asr_tf.export.batch import output as output_folder
from asr_tf.export.batch.chunks import ModelSpec
from asr_tf.export.batch.model_handler import check_masks, inspect_model

from asr_tf.data.image_files import shown, utf8
from asr_tf.export import artifact
from asr_tf.labelled import coco

__all__ = ["find_model", "parse_options", "places", "run"]

# Beam's own default has been to fetch a program from the network since 2.68; this one runs in the process.
_DEFAULT_RUNNER = "FnApiRunner"
_LOCAL_RUNNERS = (_DEFAULT_RUNNER, "DirectRunner")


def find_model(export_dir: str, version: int | None = None) -> ModelSpec:
    """The model of a version of an export folder.

    Args:
        export_dir: an export folder, or the folder of one version; local, or of any file system that TensorFlow reads.
        version: its number, None for the newest.

    Raises:
        ValueError: there is none, or it can't be used.
    """
    if matching.is_local(export_dir):
        folder = str(artifact.version_folder(export_dir, version).resolve())
        if utf8(folder) != folder:
            raise ValueError(f"--export_dir {export_dir!r} must have a name in UTF-8, for TensorFlow; rename it.")
        return inspect_model(folder)
    try:
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(export_dir)]
    except tf.errors.OpError as error:
        raise ValueError(f"{export_dir} cannot be read: {error.message}") from error
    there = sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d*", name))
    if not there and version is None:
        return inspect_model(export_dir)
    if version is not None and version not in there:
        raise ValueError(f"{export_dir} holds no version {version}; there are: {', '.join(map(str, there)) or 'none'}.")
    return inspect_model(tf.io.gfile.join(export_dir, str(version or there[-1])))


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from its flags.

    Raises:
        ValueError: an argument that no option of Beam knows, or a value that it doesn't take.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(list(arguments))
            known = options.get_all_options()
            with_unknown = options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:  # argparse, after its usage
        lines = complaint.getvalue().strip().splitlines() or [""]
        raise ValueError(f"flags of Beam: {lines[-1].partition('error: ')[2] or lines[-1]}") from error
    stray = [argument for argument in arguments[:1] if not argument.startswith("-")]
    standard = options.view_as(StandardOptions)
    if standard.runner is None:
        standard.runner = _DEFAULT_RUNNER
    if standard.runner in _LOCAL_RUNNERS:  # others have flags that are known where the job is run only
        stray += [f"--{name}" for name in with_unknown if name not in known]
    if stray:
        raise ValueError(f"flags of Beam: {stray[0]} is unknown.")
    return options


def run(
    model: ModelSpec,
    patterns: Sequence[str],
    output: str,
    output_format: str,
    options: PipelineOptions,
) -> tuple[int, int]:
    """Runs a job and waits for its end.

    Args:
        model: from `find_model`.
        patterns: paths, or patterns as `matching` has them.
        output: folder for the results, created where it is missing.
        output_format: one of `pipeline.FORMATS`.
        options: from `parse_options`.

    Returns:
        How many images were written, and how many images or files were refused.

    Raises:
        ValueError: a pattern without a file, results that are there already, or a format that can't be written.
        RuntimeError: the runner tells of a failure.
    """
    if output_format == pipeline.COCO:
        coco.check_installed()
        check_masks(model.path)
    matching.survey(patterns)
    with output_folder.writing(output) as folder:
        beam_pipeline = beam.Pipeline(options=options)
        pipeline.build(beam_pipeline, patterns, model, folder, output_format)
        try:
            result = beam_pipeline.run()
            state = result.wait_until_finish()
        except Exception as error:  # of whatever a step raises Beam makes an exception of its own
            raise RuntimeError(f"the job failed and leaves nothing in {output!r}: {_last_line(error)}") from error
        if state not in (None, PipelineState.DONE):
            raise RuntimeError(f"the job ended as {state}, and leaves nothing in {output!r}.")
        if output_format == pipeline.COCO:
            coco_json.join(f"{folder}/{pipeline.COCO_PREFIX}")
    return pipeline.written_and_refused(result)


def _last_line(error: Exception) -> str:
    """What an exception of Beam is about: the lines before that are the worker's traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix(f"{type(error).__name__}: ")


def places(output: str, output_format: str, written: int, refused: int) -> list[str]:
    """Where the results of a job are, as lines for its user.

    Args:
        output: as in `run`.
        output_format: as in `run`.
        written: from `run`.
        refused: from `run`.
    """
    folder = shown(output)
    lines = []
    if written and output_format == pipeline.COCO:
        lines.append(f"COCO: {folder}/{pipeline.COCO_PREFIX}.json")
    elif written:
        lines.append(f"Rows: {folder}/{output_folder.RESULT_PREFIX}-*.{output_format}")
    if refused:
        lines.append(f"Refused, with reasons: {folder}/{output_folder.REFUSED_PREFIX}-*.jsonl")
    return lines
