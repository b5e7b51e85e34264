"""Programs in other languages answer what the SavedModel answers in Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import source_tree
import testing_saved_model as hand_made

CLIENTS = source_tree.ROOT / "export" / "clients"
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(arguments, folder, timeout=120):
    arguments = [str(argument) for argument in arguments]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=timeout, env=QUIET)


def check_answers(output, images):
    """Each line of JSON against the model by hand, for float images [N, H, W, C]."""
    lines = [json.loads(line) for line in output.splitlines()]
    wanted = hand_made.answers(images)
    assert [line["count"] for line in lines] == wanted["count"].tolist()
    assert len(set(wanted["count"])) > 1, "the images must tell counts apart"
    for row, line in enumerate(lines):
        np.testing.assert_allclose(line["count_probs"], wanted["count_probs"][row], atol=1e-6)
        boxes = np.reshape(line["boxes"], (-1, 4))
        np.testing.assert_allclose(boxes, wanted["boxes"][row, : line["count"]], atol=1e-6)


def check_refused(done, message):
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return hand_made.write(tmp_path_factory.mktemp("exports") / "1")


@pytest.fixture(scope="module")
def rgb_model(tmp_path_factory):
    return hand_made.write(tmp_path_factory.mktemp("exports") / "1", channels=3)


@pytest.fixture(scope="module")
def c_client(tmp_path_factory):
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("no C compiler (cc) or no make")
    folder = tmp_path_factory.mktemp("c")
    done = run(["make", "-C", CLIENTS / "c", f"PYTHON={sys.executable}", f"OUT={folder}", "CFLAGS=-O1 -Werror"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "asr_infer"


def write_pnm(path, pixels, header=b"P5\n# a comment\n8 6\n255\n"):
    path.write_bytes(header + pixels.tobytes())
    return path


def test_c_client_answers_as_python_does(c_client, model, tmp_path):
    images = hand_made.pictures(300).astype(np.float32) / 255  # more than its largest batch
    images.tofile(tmp_path / "images.f32")
    done = run([c_client, model, tmp_path / "images.f32"], tmp_path)
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, images)
    records = [json.loads(line)["record"] for line in done.stdout.splitlines()]
    assert records == list(range(300))

    picture = hand_made.pictures(1)
    done = run([c_client, model, write_pnm(tmp_path / "x.pgm", picture)], tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    wanted = hand_made.answers(picture.astype(np.float32) / 255)
    np.testing.assert_allclose(json.loads(line)["count_probs"], wanted["count_probs"][0], atol=1e-6)


def test_c_client_reads_rgb_images(c_client, model, rgb_model, tmp_path):
    images = hand_made.pictures(20, channels=3).astype(np.float32) / 255
    images.tofile(tmp_path / "images.f32")
    done = run([c_client, rgb_model, tmp_path / "images.f32"], tmp_path)
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, images)

    picture = hand_made.pictures(1, seed=5, channels=3)
    color = write_pnm(tmp_path / "x.ppm", picture, b"P6\n8 6\n255\n")
    done = run([c_client, rgb_model, color], tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = hand_made.answers(picture.astype(np.float32) / 255)
    np.testing.assert_allclose(json.loads(done.stdout)["count_probs"], wanted["count_probs"][0], atol=1e-6)

    grey = write_pnm(tmp_path / "x.pgm", picture[..., 0])
    message = "x.pgm: must be RGB (3 channels) for this model, got a grey image (1 channel)"
    check_refused(run([c_client, rgb_model, grey], tmp_path), message)
    message = "x.ppm: must be grey (1 channel) for this model, got an RGB image (3 channels)"
    check_refused(run([c_client, model, color], tmp_path), message)
    (tmp_path / "one.f32").write_bytes(b"x" * 192)
    message = "must hold images of 6 x 8 x 3 float32 values (height x width x channels), 576 bytes each, got 192 bytes"
    check_refused(run([c_client, rgb_model, "one.f32"], tmp_path), message)


def test_c_client_takes_raw_images_of_any_number_of_channels(c_client, tmp_path):
    model = hand_made.write(tmp_path / "1", channels=5)
    images = hand_made.pictures(9, channels=5).astype(np.float32) / 255
    images.tofile(tmp_path / "images.f32")
    done = run([c_client, model, tmp_path / "images.f32"], tmp_path)
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, images)
    grey = write_pnm(tmp_path / "x.pgm", images[0, ..., 0])
    message = "x.pgm: must be of 5 channels for this model, got a grey image (1 channel)"
    check_refused(run([c_client, model, grey], tmp_path), message)


def test_c_client_refuses_with_one_line(c_client, model, tmp_path):
    picture = hand_made.pictures(1)
    check_refused(run([c_client], tmp_path), "asr_infer: error: usage: asr_infer MODEL IMAGES")
    wide = write_pnm(tmp_path / "wide.pgm", picture, b"P5 6 8 255\n")
    check_refused(run([c_client, model, wide], tmp_path), "must be 6 x 8 pixels (height x width), got 8 x 6")
    picture[0, -1, -1] = 255
    white = write_pnm(tmp_path / "white.pgm", picture)
    check_refused(run([c_client, model, white], tmp_path), "images must not end in white")


@pytest.mark.slow
def test_c_client_refuses_broken_files(c_client, model, tmp_path):
    picture = hand_made.pictures(1)
    check_refused(run([c_client, tmp_path, "x.pgm"], tmp_path), "Could not find SavedModel")
    check_refused(run([c_client, model, "no.pgm"], tmp_path), "no.pgm: No such file or directory")
    short = write_pnm(tmp_path / "short.pgm", picture[:, :5])
    check_refused(run([c_client, model, short], tmp_path), "must hold 48 bytes of pixels, got 40")
    deep = write_pnm(tmp_path / "deep.pgm", picture, b"P5 8 6 65535\n")
    check_refused(run([c_client, model, deep], tmp_path), "more than 8 bits a channel")
    (tmp_path / "x.txt").write_text("no picture")
    check_refused(run([c_client, model, "x.txt"], tmp_path), "must be a binary PGM file")
    (tmp_path / "x.f32").write_bytes(b"x" * 100)
    check_refused(run([c_client, model, "x.f32"], tmp_path), "192 bytes each, got 100 bytes")


@pytest.mark.slow
def test_node_client_answers_as_python_does(model, rgb_model, tmp_path):
    for program in ("node", "npm", "c++", "make"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    folder = tmp_path / "node"
    done = run([CLIENTS / "node" / "install.sh", sys.executable, folder], tmp_path, timeout=900)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    pictures = hand_made.pictures(6)
    for index, picture in enumerate(pictures):
        PIL.Image.fromarray(picture[..., 0]).save(folder / f"{index}.png")
    done = run(["node", "infer.mjs", model, *(f"{index}.png" for index in range(6))], folder)
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, pictures.astype(np.float32) / 255)

    PIL.Image.fromarray(pictures[0, ..., 0].T).save(folder / "wide.png")
    PIL.Image.fromarray(pictures[0, ..., 0]).convert("RGB").save(folder / "color.png")
    colored = hand_made.pictures(6, channels=3)
    for index, picture in enumerate(colored):
        PIL.Image.fromarray(picture).save(folder / f"rgb{index}.png")
    done = run(["node", "infer.mjs", rgb_model, *(f"rgb{index}.png" for index in range(6))], folder)
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, colored.astype(np.float32) / 255)

    for arguments, message in (
        ([], "usage: node infer.mjs MODEL IMAGE.png..."),
        ([tmp_path, "0.png"], "saved_model.pb"),
        ([model, "wide.png"], "must be grey (1 channel) and 6 x 8 pixels (height x width), got 8 x 6 pixels"),
        ([model, "color.png"], "color.png must be grey (1 channel) and 6 x 8 pixels (height x width), got"),
        ([model, "color.png"], "got 6 x 8 pixels that are RGB (3 channels)"),
        ([rgb_model, "0.png"], "0.png must be RGB (3 channels) and 6 x 8 pixels (height x width), got"),
        ([rgb_model, "0.png"], "got 6 x 8 pixels that are grey (1 channel)"),
        ([model, "package.json"], "cannot be read as a PNG image"),
        ([model, "none.png"], "no such file"),
    ):
        check_refused(run(["node", "infer.mjs", *arguments], folder), message)
