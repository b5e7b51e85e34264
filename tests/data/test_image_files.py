from __future__ import annotations

import io
import os

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.data import image_files
from asr_tf.data.image_files import Unreadable


def npy(array, **options):
    data = io.BytesIO()
    np.save(data, array, **options)
    return data.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.random.default_rng(0).random((5, 4))),
        np.random.default_rng(0).random((5, 4)).astype(">f4"),
        np.zeros((0, 4), np.float16),
        np.array(0.5),
    ],
)
def test_arrays_as_they_are_in_the_file(array):
    loaded = image_files.load_npy(npy(array))
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


_WHOLE = npy(np.zeros((6, 8)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read as an NPY array, got an empty file"),
        (b"junk", "cannot be read as an NPY array, got 4 bytes of something else"),
        (b"PK\x03\x04junk", "cannot be read as an NPY array, got a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a pointer of Git LFS"),
        (_WHOLE.replace(b"}", b" "), "its header is damaged"),
        (_WHOLE[:40], "its header is damaged"),
        (_WHOLE.replace(b"(6, 8)", b"(-6,8)"), "its header is damaged"),
        (_WHOLE[:-3], "its header claims 384 bytes of numbers, it holds 381"),
        (_WHOLE + _WHOLE, "its header claims 384 bytes of numbers, it holds 896"),
        (_WHOLE.replace(b"(6, 8), }          ", b"(9999999, 9999999)}"), "claims 799999840000008 bytes"),
        (npy(np.array([{}], object), allow_pickle=True), "must be uint8 or floating point, got dtype object"),
        (npy(np.zeros(3, np.uint16)), "must be uint8 or floating point, got dtype uint16"),
        (npy(np.zeros(3, bool)), "must be uint8 or floating point, got dtype bool"),
        (npy(np.zeros(3, complex)), "must be uint8 or floating point, got dtype complex128"),
        (npy(np.zeros(3, [("a", "u1")])), "must be uint8 or floating point, got dtype [('a', 'u1')]"),
    ],
)
def test_arrays_that_cannot_be_read(data, reason):
    with pytest.raises(Unreadable) as error:
        image_files.load_npy(data)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_are_held_against_the_range_before_they_are_rounded():
    images = np.full((6, 2, 3, 1), 0.5)
    images[1, 1, 2] = np.nan
    images[2, 0, 0] = 1.000001
    images[3, 0, 0] = -np.inf
    images[4, 0, 0] = 1.0 + 1e-15  # which float32 takes for 1
    assert image_files.row_faults(images) == {
        1: "must not hold NaN",
        2: "must lie in [0, 1] in floating point, got values from 0.5 to 1.000001",
        3: "must lie in [0, 1] in floating point, got values from -inf to 0.5",
        4: "must lie in [0, 1] in floating point, got values from 0.5 to 1.000000000000001",
    }
    assert image_files.row_faults(np.full((1, 2, 3, 1), 255, np.uint8)) == {}


def test_files_that_are_none(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"abc")
    assert image_files.read_bytes(tmp_path / "file") == b"abc"
    for name, reason in {
        "folder": "cannot be read: it is a folder",
        "pipe": "cannot be read: it is no file",  # reading it would never end
        "link": "cannot be read: No such file or directory",
    }.items():
        with pytest.raises(Unreadable, match=f"^{reason}$"):
            image_files.read_bytes(tmp_path / name)


@pytest.mark.parametrize("name", ["._x.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "__MACOSX"])
def test_clutter(name):
    assert image_files.is_clutter(name)


@pytest.mark.parametrize("name", ["x.png", "_x.png", "thumbs.png", "Thumbs.db.png"])
def test_what_is_no_clutter(name):
    assert not image_files.is_clutter(name)


def test_names_in_messages():
    assert image_files.shown("folder/ä [1].png") == "folder/ä [1].png"
    assert image_files.shown("a\nb") == r"a\nb"
    assert image_files.shown(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
    assert image_files.utf8(os.fsdecode(b"caf\xe9/\xc3\xa4")) == r"caf\xe9/ä"
    assert image_files.tally(["c.bmp", "a.jpg", "b.jpg", "c.JPG"]) == "2 *.jpg, 1 *.bmp, 1 *.JPG"
    assert image_files.tally([]) == ""
    assert image_files.is_read("a.PNG") and image_files.is_image("a.PNG")
    assert image_files.is_image("a.JPEG") and not image_files.is_read("a.JPEG")
    assert not image_files.is_image("a.txt")


def test_messages_without_what_is_tensorflows_own():
    with pytest.raises(tf.errors.OpError) as caught:
        tf.io.decode_png(b"junk").numpy()
    assert "{{function_node" in str(caught.value)
    line = image_files.first_line(caught.value)
    assert line and "{{" not in line and "[Op:" not in line
    assert image_files.first_line(ValueError("one\ntwo")) == "one"
    assert image_files.first_line(KeyError()) == "KeyError"
