"""Writes a version of a trained run: the SavedModel or LiteRT model, its card, golden values and warm-up requests."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asr_tf import version as asr_version
from asr_tf.checks import check_choice
from asr_tf.export import artifact
from asr_tf.models import ASRModel
from asr_tf.runs.run_folder import RunFolder, restore_model
from asr_tf.serving.served_model import MOST_TRIES, ServedModel, to_tflite

__all__ = ["GOLDEN_BATCHES", "export_model", "export_run"]

GOLDEN_BATCHES = (1, 3)
_GOLDEN_PARTICLES = 2
_GOLDEN_STEPS = 2
_MODEL_NAME = "asr"

# Inputs and outputs of each case, by signature.
Golden = dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]


def export_run(
    workdir: str | os.PathLike[str],
    export_dir: str | os.PathLike[str],
    version: int | None = None,
    model_format: str = "savedmodel",
    warmup: bool = True,
) -> pathlib.Path:
    """Exports the newest intact checkpoint of a run.

    Args:
        workdir: folder of the run.
        export_dir: folder of versions, created where it is missing.
        version: number of the new version, None for one more than the newest.
        model_format: "savedmodel", or "tflite" for LiteRT, which has `infer` only.
        warmup: whether to write requests that TensorFlow Serving answers before it takes others (SavedModel only).

    Returns:
        The folder of the version.

    Raises:
        ExportError, RunFolderError: the run can't be exported, or the version can't be written.
    """
    model, info = restore_model(workdir)
    if not isinstance(model, ASRModel):
        raise artifact.ExportError(
            f"{workdir} holds a {type(model).__name__}, which has no objects to serve; "
            "asr_export takes runs of ASRModel (models/asr.gin, air_pprior.gin, air.gin)."
        )
    folder = RunFolder(workdir)
    training = {"config_gin": folder.config.read_text(encoding="utf-8"), "run": info}
    report = _report(folder, int(keras.ops.convert_to_numpy(model.step)))
    return export_model(model, export_dir, version, model_format, warmup, training=training, test=report)


def _report(folder: RunFolder, steps: int) -> dict[str, Any] | None:
    """The test figures of these weights; None where there are none, or those of an earlier state of the run."""
    if not folder.report.is_file():
        return None
    try:
        report = dict(json.loads(folder.report.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise artifact.ExportError(
            f"{folder.report} is damaged ({error}): asr_evaluate writes it anew, or move it away."
        ) from error
    of_step = report.get("weights_of_step")
    if of_step != steps:
        print(f"{folder.report} is of step {of_step}, and the model of step {steps}: left out.")
        return None
    return report


def export_model(
    model: ASRModel,
    export_dir: str | os.PathLike[str],
    version: int | None = None,
    model_format: str = "savedmodel",
    warmup: bool = True,
    **about: Any,
) -> pathlib.Path:
    """Exports a model as it is; arguments as of `export_run`.

    Args:
        model: of scenes.
        export_dir, version, model_format, warmup: as of `export_run`.
        **about: further entries of the model's card, for JSON.

    Returns:
        The folder of the version.

    Raises:
        ExportError: the model has weights that aren't finite, there are versions of another format, or the version
            can't be written.
        ValueError: there is no such format.
    """
    check_choice("model_format", model_format, artifact.MODEL_FILES)
    artifact.check_one_format(export_dir, model_format)
    _check_finite(model)
    golden = golden_values(model)
    if model_format == "tflite":
        golden, warmup = {"infer": golden["infer"]}, False
    names = {*golden} if model_format == "tflite" else {*golden, "serving_default"}
    requests = _warmup_requests(golden) if warmup else []
    with artifact.new_version(export_dir, version) as (folder, number):
        (folder / artifact.GOLDEN).parent.mkdir()
        served = ServedModel(model)
        if model_format == "tflite":
            (folder / artifact.TFLITE).write_bytes(to_tflite(model))
        else:
            served.save(folder)
        _write_golden(folder / artifact.GOLDEN, golden)
        if requests:
            with tf.io.TFRecordWriter(str(folder / artifact.WARMUP)) as writer:
                for request in requests:
                    writer.write(request)
        card = {
            "name": _MODEL_NAME,
            "version": number,
            "format": model_format,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "made_with": {
                "asr_tf": asr_version.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "python": platform.python_version(),
            },
            "signatures": {name: entry for name, entry in served.description().items() if name in names},
            **about,
            "files": artifact.checksums(folder),
        }
        (folder / artifact.CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return pathlib.Path(export_dir).expanduser() / str(number)


def _check_finite(model: ASRModel) -> None:
    for variable in model.trainable_variables:
        if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable))):
            raise artifact.ExportError(f"weight {variable.path} of the model holds numbers that aren't finite.")


def golden_values(model: ASRModel) -> Golden:
    """What the model itself answers, in this process and not through the export: (inputs, outputs) by signature.

    Images are scenes of the model's own prior: it is sure to have some.
    """
    golden: Golden = {name: [] for name in ("infer", "refine", "sample", "render", "log_likelihood")}
    scenes = model.sample(sum(GOLDEN_BATCHES), seed=(0, 0))["images"]
    seed = np.array([3, 14], np.int32)

    @tf.function(autograph=False)  # in a graph, scenes that obey no rule after the last try are no error
    def sample(size: int, number: int, tries: int) -> dict[str, tf.Tensor]:
        return model.sample(size, seed, number, obey=True, max_tries=tries)

    for i, (size, images) in enumerate(zip(GOLDEN_BATCHES, tf.split(scenes, GOLDEN_BATCHES), strict=True)):
        inferred = model.infer(images)
        golden["infer"].append(({"images": images}, inferred))
        refined = model.refine(images, _GOLDEN_STEPS)
        golden["refine"].append(({"images": images, "steps": np.int32(_GOLDEN_STEPS)}, refined))
        number, obey = (-1, False) if i == 0 else (min(2, model.num_steps), True)
        asked = {"num_samples": np.int32(size), "seed": seed, "num_objects": np.int32(number), "obey": np.bool_(obey)}
        golden["sample"].append((asked, sample(size, number, MOST_TRIES if obey else 1)))
        objects = {name: inferred[name] for name in ("z_what", "boxes", "presence")}
        golden["render"].append((objects, {"images": model.render(*objects.values())}))
        nats = model.log_likelihood(images, _GOLDEN_PARTICLES, seed)
        weighed = {"images": images, "num_particles": np.int32(_GOLDEN_PARTICLES), "seed": seed}
        golden["log_likelihood"].append((weighed, {"log_likelihood": nats}))
    return tf.nest.map_structure(lambda value: np.asarray(keras.ops.convert_to_numpy(value)), golden)


def _write_golden(path: pathlib.Path, golden: Golden) -> None:
    """An npz with entries `signature/case/inputs or outputs/name`."""
    arrays = {
        f"{signature}/{case}/{side}/{name}": value
        for signature, cases in golden.items()
        for case, sides in enumerate(cases)
        for side, values in zip(("inputs", "outputs"), sides, strict=True)
        for name, value in values.items()
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _warmup_requests(golden: Golden) -> list[bytes]:
    """Serialized `PredictionLog` protos, one for each golden case."""
    try:
        from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise artifact.ExportError(
            "warm-up requests need tensorflow-serving-api; pip install 'asr_tf[export]', or give --nowarmup."
        ) from error
    requests = []
    for signature, cases in golden.items():
        for inputs, _ in cases:
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=_MODEL_NAME, signature_name=signature),
                inputs={name: tf.make_tensor_proto(value) for name, value in inputs.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            requests.append(log.SerializeToString())
    return requests
