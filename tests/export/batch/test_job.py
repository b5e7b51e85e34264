from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import source_tree
import tensorflow as tf
import testing_export
import testing_saved_model as hand_made
from asr_tf.export.batch import job, model_handler, pipeline
from asr_tf.export.batch.chunks import Chunk, Refusal
from pycocotools.coco import COCO


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    """Versions 2 and 10 of the hand-made model: the newest isn't the last by name."""
    folder = tmp_path_factory.mktemp("exports")
    for version in (2, 10):
        hand_made.write(folder / str(version))
    (folder / ".exporting-11-x").mkdir()
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of files of each kind, and the image that each (file, record) holds; with every kind of fault."""
    folder = tmp_path_factory.mktemp("inputs")
    pixels = hand_made.pictures(620)
    there = {}
    for start in (0, 300):
        file = folder / f"s-{start}.npy"
        np.save(file, pixels[start : start + 300])
        there |= {(str(file), record): pixels[start + record] for record in range(300)}
    for index in range(600, 610):
        file = folder / f"{index}.png"
        PIL.Image.fromarray(pixels[index, ..., 0]).save(file)
        there[str(file), 0] = pixels[index]
    file = folder / "r.tfrecord"
    hand_made.write_records(file, [picture.tobytes() for picture in pixels[610:]] + [b"short"])
    there |= {(str(file), record): pixels[610 + record] for record in range(10)}
    real = pixels[:4].astype(np.float32) / 255
    real[1, 0, 0] = np.nan
    real[2, -1, -1] = 1.0  # which the model itself refuses
    np.save(folder / "real.npy", real)
    there |= {(str(folder / "real.npy"), record): pixels[record] for record in (0, 3)}
    (folder / "broken.png").write_bytes(b"no picture")
    np.save(folder / "wide.npy", np.zeros((2, 8, 6), np.uint8))
    faults = {("r.tfrecord", 10), ("real.npy", 1), ("real.npy", 2), ("broken.png", 0), ("wide.npy", None)}
    return folder, there, faults


def run(export_dir, patterns, output, output_format="parquet", arguments=(), version=None):
    model = job.find_model(str(export_dir), version)
    return job.run(model, patterns, str(output), output_format, job.parse_options(arguments))


def check_rows(rows, there):
    """Every image has one row, which holds what the model answers for it."""
    assert sorted((row["file"], row["record"]) for row in rows) == sorted(there)
    wanted = hand_made.answers(np.stack([there[row["file"], row["record"]] for row in rows]).astype(np.float32) / 255)
    for name, values in wanted.items():
        np.testing.assert_allclose(np.array([row[name] for row in rows]), values, atol=1e-6, err_msg=name)


def read_refused(output):
    lines = [line for file in output.glob("_refused-*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def read_parquet(output):
    return pq.read_table(output).to_pylist()  # the folder as a whole


def check_all(output, numbers, inputs):
    folder, there, faults = inputs
    check_rows(read_parquet(output), there)
    refused = read_refused(output)
    assert {(line["file"].removeprefix(f"{folder}/"), line["record"]) for line in refused} == faults
    assert all(line["reason"] for line in refused)
    (by_model,) = [line for line in refused if (line["file"], line["record"]) == (f"{folder}/real.npy", 2)]
    assert "images must not end in white" in by_model["reason"]
    assert numbers == (len(there), len(faults))


def test_every_image_is_written_or_refused(export_dir, inputs, tmp_path):
    folder = inputs[0]
    patterns = [f"{folder}/*.npy", f"{folder}/*.png", f"{folder}/r.tfrecord", f"{folder}/r.tf*", f"{folder}/*.png"]
    output = tmp_path / "new" / "out"
    check_all(output, run(export_dir, patterns, output), inputs)
    assert sorted(path.name.partition("-")[0] for path in output.iterdir()) == ["_SUCCESS", "_refused", "objects"]

    with pytest.raises(ValueError, match="holds results already .*give another folder"):
        run(export_dir, patterns, output)


@pytest.mark.parametrize("name", ["a[1]", "a\\b", "two\nlines", "*"])
def test_paths_of_any_characters(export_dir, tmp_path, monkeypatch, name):
    """Of the model, the input and the output; here relative to the current folder, too."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(export_dir, tmp_path / name / "exports")
    pixels = hand_made.pictures(3)
    for index, picture in enumerate(pixels):
        np.save(tmp_path / name / f"{name}{index}.npy", picture)
    there = {(f"{name}/{name}{index}.npy", 0): picture for index, picture in enumerate(pixels)}
    patterns = [f"{name}/{name}0.npy", f"{name}/*[12].npy"]
    assert run(f"{name}/exports", patterns, f"{name}/out") == (3, 0)
    check_rows(read_parquet(tmp_path / name / "out"), there)
    written = sorted(path.name.partition("-")[0] for path in (tmp_path / name / "out").iterdir())
    assert written == ["_SUCCESS", "objects"]


def test_a_name_that_is_no_utf8_is_refused(export_dir, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", hand_made.pictures(3))
    for name in (b"caf\xe9.npy", b"caf\xe9.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb"):
            pass
    patterns = [f"{folder}/*", os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")]
    assert run(export_dir, patterns, tmp_path / "out") == (3, 2)
    refused = {line["file"]: line["reason"] for line in read_refused(tmp_path / "out")}
    assert refused == dict.fromkeys(
        [f"{folder}/caf\\xe9.npy", f"{folder}/caf\\xe9.png"], "must have a name in UTF-8; rename it"
    )


def test_an_export_whose_name_is_no_utf8(tmp_path):
    folder = tmp_path / "caf\udce9"
    hand_made.write(tmp_path / "1")
    folder.mkdir()
    (tmp_path / "1").rename(folder / "1")
    with pytest.raises(ValueError, match="UTF-8") as error:
        job.find_model(str(folder))
    assert "\n" not in str(error.value)


def test_files_that_are_no_tfrecords_stop_nothing(export_dir, tmp_path):
    """Each is refused once, and all others are inferred."""
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = [picture.tobytes() for picture in hand_made.pictures(300)]
    for name in ("good", "first", "at256"):
        hand_made.write_records(folder / f"{name}.tfrecord", pixels)
    whole = (folder / "good.tfrecord").read_bytes()
    size = len(whole) // 300
    (folder / "first.tfrecord").write_bytes(b"\xff" * 30 + whole[30:])
    (folder / "at256.tfrecord").write_bytes(whole[: 256 * size] + b"\xff" * 30 + whole[256 * size + 30 :])
    (folder / "lfs.tfrecord").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n")
    hand_made.write_records(folder / "packed.tfrecord", pixels, "GZIP")
    (folder / "plain.tfrecord.gz").write_bytes(whole)
    (folder / "empty.tfrecord").write_bytes(b"")
    assert run(export_dir, [f"{folder}/*"], tmp_path / "out") == (556, 6)
    refused = [(line["file"].removeprefix(f"{folder}/"), line["record"]) for line in read_refused(tmp_path / "out")]
    assert sorted(refused, key=str) == sorted(
        [
            ("at256.tfrecord", 256),
            ("empty.tfrecord", None),
            ("first.tfrecord", 0),
            ("lfs.tfrecord", None),
            ("packed.tfrecord", None),
            ("plain.tfrecord.gz", None),
        ],
        key=str,
    )


def test_after_a_job_was_killed_the_same_one_is_whole(export_dir, inputs, tmp_path, capsys):
    """It had published its rows, and nothing else."""
    (tmp_path / "_unfinished").mkdir()
    pq.write_table(pa.table({"file": ["old"]}), tmp_path / "objects-00000-of-00002.parquet")
    check_all(tmp_path, run(export_dir, [f"{inputs[0]}/*"], tmp_path), inputs)
    assert f"{tmp_path}: removing what a job has left" in capsys.readouterr().err


def test_a_job_that_fails_leaves_nothing(export_dir, inputs, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(pipeline.writing, "to_table", fail)
    with pytest.raises(RuntimeError, match="^the job failed and leaves nothing in '.*/out': .*the disk is full .*"):
        run(export_dir, [f"{inputs[0]}/s-0.npy"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_tfrecord_holds_the_same(export_dir, inputs, tmp_path):
    folder, there, _ = inputs
    assert run(export_dir, [f"{folder}/s-*"], tmp_path, "tfrecord") == (600, 0)
    (file,) = (path for path in tmp_path.iterdir() if path.name != "_SUCCESS")
    assert file.suffix == ".tfrecord"
    rows = []
    for record in tf.data.TFRecordDataset(str(file)):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        rows.append(
            {
                "file": feature["file"].bytes_list.value[0].decode(),
                "record": feature["record"].int64_list.value[0],
                "count": feature["count"].int64_list.value[0],
                "count_probs": list(feature["count_probs"].float_list.value),
                "boxes": np.reshape(feature["boxes"].float_list.value, (-1, 4)),
                "scores": list(feature["scores"].float_list.value),
            }
        )
    check_rows(rows, {key: image for key, image in there.items() if "/s-" in key[0]})


def test_an_export_answers_as_it_does_directly(tiny_export, tmp_path):
    images = testing_export.images(40)
    np.save(tmp_path / "a.npy", images)
    assert run(tiny_export, [f"{tmp_path}/a.npy"], tmp_path / "out") == (40, 0)
    rows = sorted(read_parquet(tmp_path / "out"), key=lambda row: row["record"])
    loaded = tf.saved_model.load(str(tiny_export / "1"))
    wanted = loaded.signatures["infer"](images=tf.constant(images))
    assert len(set(wanted["count"].numpy())) > 1
    for name in ("count", "count_probs", "boxes"):
        np.testing.assert_allclose(np.array([row[name] for row in rows]), wanted[name], atol=1e-6, err_msg=name)


def test_coco_holds_what_the_signature_answers(tiny_export, tmp_path):
    images = (testing_export.images(300) * 255).astype(np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", images[:290])
    there = {(f"{folder}/a.npy", record): images[record] for record in range(290)}
    for index in range(290, 300):
        PIL.Image.fromarray(images[index, ..., 0]).save(folder / f"{index}.png")
        there[f"{folder}/{index}.png", 0] = images[index]
    (folder / "broken.png").write_bytes(b"no picture")
    output = tmp_path / "out"
    assert run(tiny_export, [f"{folder}/*"], output, "coco") == (300, 1)
    assert sorted(path.name.partition("-0")[0] for path in output.iterdir()) == [
        *("_SUCCESS", "_refused", "objects-coco.json")
    ]
    with pytest.raises(ValueError, match="holds results already"):
        run(tiny_export, [f"{folder}/*"], output, "coco")

    data = COCO(str(output / "objects-coco.json"))
    assert {(image["file_name"], image["record"]) for image in data.imgs.values()} == set(there)
    ordered = np.stack([there[image["file_name"], image["record"]] for image in data.imgs.values()])
    infer = tf.saved_model.load(str(tiny_export / "1")).signatures["infer"]
    wanted = {name: value.numpy() for name, value in infer(images=tf.constant(ordered, tf.float32) / 255).items()}
    assert len(data.anns) > 100
    for row, image in enumerate(data.imgs.values()):
        assert image["count"] == wanted["count"][row]
        masks = wanted["masks"][row, ..., 0] >= 0.5
        steps = [step for step in range(image["count"]) if masks[step].any()]
        entries = data.imgToAnns[image["id"]]
        assert len(entries) == len(steps)
        for entry, step in zip(entries, steps, strict=True):
            np.testing.assert_array_equal(data.annToMask(entry), masks[step])
            assert entry["score"] == pytest.approx(wanted["scores"][row, step], abs=2e-6)


def test_an_export_without_masks_has_no_coco(export_dir, inputs, tmp_path):
    with pytest.raises(ValueError, match="gives no masks, which the format coco needs: export the model anew"):
        run(export_dir, [f"{inputs[0]}/s-*"], tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()


def test_a_failure_is_told_without_the_workers_traceback():
    for start in ("", "Traceback (most recent call last):\n  File x\nRuntimeError: "):
        assert job._last_line(RuntimeError(f"{start}OSError: full [while x]\n")) == "OSError: full [while x]"
    assert job._last_line(RuntimeError()) == "RuntimeError"


@pytest.mark.slow
def test_workers_that_are_processes(export_dir, inputs, tmp_path):
    arguments = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    check_all(tmp_path, run(export_dir, [f"{inputs[0]}/*"], tmp_path, arguments=arguments), inputs)


@pytest.mark.parametrize("output_format", ["parquet", "coco"])
def test_without_the_training_stack(tiny_export, tmp_path, output_format):
    """Where Keras, TensorFlow Probability and the rest can't be imported, as on a worker that has the least."""
    np.save(tmp_path / "a.npy", testing_export.images(30))
    code = f"""
import sys
for name in ("keras", "tf_keras", "tensorflow_probability", "tensorflow_datasets", "gin", "scipy", "matplotlib"):
    sys.modules[name] = None
from asr_tf.export.batch import job
model = job.find_model({str(tiny_export)!r})
output = {str(tmp_path / "out")!r}
print(job.run(model, [{str(tmp_path / "a.npy")!r}], output, {output_format!r}, job.parse_options([])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source_tree.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(30, 0)"


def test_the_newest_version_or_the_one_that_is_asked_for(export_dir):
    assert job.find_model(str(export_dir)) == (str(export_dir / "10"), (*hand_made.CANVAS, 1), hand_made.NUM_STEPS)
    assert job.find_model(str(export_dir), 2).path == str(export_dir / "2")
    assert job.find_model(str(export_dir / "2")).path == str(export_dir / "2")
    with pytest.raises(ValueError, match="holds no version 3; there are: 2, 10"):
        job.find_model(str(export_dir), 3)


def test_versions_on_other_file_systems(export_dir):
    """TensorFlow's own `file://` stands in for storage that a path of this machine doesn't name."""
    url = f"file://{export_dir}"
    assert job.find_model(url).path == f"{url}/10"
    assert job.find_model(url, 2).path == f"{url}/2"
    assert job.find_model(f"{url}/2").image_shape == (*hand_made.CANVAS, 1)
    with pytest.raises(ValueError, match="holds no version 3; there are: 2, 10"):
        job.find_model(url, 3)
    with pytest.raises(ValueError, match="cannot be read"):
        job.find_model(f"{url}/none")


def test_what_is_no_model_of_scenes(tmp_path):
    with pytest.raises(ValueError, match="holds no exported version"):
        job.find_model(str(tmp_path))
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="is no SavedModel"):
        job.find_model(str(tmp_path))
    other = tf.Module()
    other.call = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(other, str(tmp_path / "2"), signatures={"call": other.call})
    with pytest.raises(ValueError, match="has no signature 'infer'; it must be written by asr_export"):
        job.find_model(str(tmp_path))
    tf.saved_model.save(other, str(tmp_path / "3"), signatures={"infer": other.call})
    with pytest.raises(ValueError, match=r"lacks \['boxes', 'count', 'count_probs', 'images'\]"):
        job.find_model(str(tmp_path))


def test_input_that_matches_nothing(export_dir, tmp_path):
    with pytest.raises(ValueError, match=r"--input '.*/\*.png' matches no file"):
        run(export_dir, [f"{tmp_path}/*.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="--input 'nowhere://x' cannot be read"):
        run(export_dir, ["nowhere://x"], tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--direct_num_wrokers=2"], "--direct_num_wrokers is unknown"),
        (["--direct_num_workers=many"], "flags of Beam: .*invalid int value: 'many'"),
        (["stray"], "stray is unknown"),
    ],
)
def test_wrong_flags_of_beam(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        job.parse_options(arguments)


def test_flags_of_other_runners_are_passed_on():
    options = job.parse_options(["--runner=FlinkRunner", "--flink_master=host:8081", "--own_flag=1"])
    assert options.get_all_options()["flink_master"] == "host:8081"
    assert options.get_all_options()["runner"] == "FlinkRunner"


def test_one_bad_image_does_not_cost_its_chunk(export_dir):
    handler = model_handler.SavedModelHandler(str(export_dir / "10"))
    pixels = hand_made.pictures(5)
    pixels[3, -1, -1] = 255
    chunk = Chunk(["f"] * 5, np.arange(5) + 20, pixels)
    (result,) = handler.run_inference([chunk], handler.load_model())
    refused = [part for part in result.inference if isinstance(part, Refusal)]
    assert [(refusal.file, refusal.record) for refusal in refused] == [("f", 23)]
    written = [int(part.records[0]) for part in result.inference if not isinstance(part, Refusal)]
    assert written == [20, 21, 22, 24]


def test_rgb_images_of_every_kind_of_file(tmp_path):
    """A model of 3 channels: RGB images are inferred, and grey ones are refused with what is wanted."""
    hand_made.write(tmp_path / "exports" / "1", channels=3)
    pixels = hand_made.pictures(30, channels=3)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", pixels[:10])
    np.save(folder / "grey.npy", pixels[:5, ..., 0])
    there = {(f"{folder}/a.npy", record): pixels[record] for record in range(10)}
    for index in range(10, 20):
        PIL.Image.fromarray(pixels[index]).save(folder / f"{index}.png")
        there[f"{folder}/{index}.png", 0] = pixels[index]
    PIL.Image.fromarray(pixels[0, ..., 0]).save(folder / "grey.png")
    hand_made.write_records(
        folder / "r.tfrecord", [picture.tobytes() for picture in pixels[20:]] + [pixels[0, ..., 0].tobytes()]
    )
    there |= {(f"{folder}/r.tfrecord", record): pixels[20 + record] for record in range(10)}
    assert job.find_model(str(tmp_path / "exports")).image_shape == (*hand_made.CANVAS, 3)
    assert run(tmp_path / "exports", [f"{folder}/*"], tmp_path / "out") == (30, 3)
    check_rows(read_parquet(tmp_path / "out"), there)
    reasons = {line["file"].removeprefix(f"{folder}/"): line["reason"] for line in read_refused(tmp_path / "out")}
    assert reasons == {
        "grey.npy": "must hold [6, 8, 3] pixels, or [N, 6, 8, 3], that are RGB (3 channels), got shape [5, 6, 8]",
        "grey.png": "must be a PNG image that is RGB (3 channels), got one that is grey (1 channel)",
        "r.tfrecord": "must be a PNG image, or 144 bytes (uint8) or 576 bytes (float32) of 6 x 8 pixels that are RGB "
        "(3 channels), got 48 bytes",
    }
    assert run(tmp_path / "exports", [f"{folder}/r.tfrecord"], tmp_path / "records", "tfrecord") == (10, 1)


@pytest.mark.parametrize("channels", [2, 4, None])
def test_a_model_of_images_that_are_neither_grey_nor_rgb(tmp_path, channels):
    hand_made.write(tmp_path / "1", channels)
    message = r"must have shape \[B, H, W, C\] with H and W fixed and C = 1 \(grey\) or 3 \(RGB\), got \['\?', 6, 8, "
    with pytest.raises(ValueError, match=message):
        job.find_model(str(tmp_path))
