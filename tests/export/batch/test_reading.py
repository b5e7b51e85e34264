from __future__ import annotations

import gzip
import os

import numpy as np
import PIL.Image
import pytest
import testing_png
import testing_saved_model as hand_made
from asr_tf.export.batch import reading
from asr_tf.export.batch.chunks import CHUNK_SIZE, Chunk, Refusal

SHAPE = (*hand_made.CANVAS, 1)


def read(*files, shape=SHAPE):
    parts = list(reading.read_chunks([str(file) for file in files], shape))
    return [part for part in parts if isinstance(part, Chunk)], [part for part in parts if isinstance(part, Refusal)]


def images_of(chunks):
    """(file, record) -> image."""
    return {
        (file, int(record)): image
        for chunk in chunks
        for file, record, image in zip(chunk.files, chunk.records, chunk.images, strict=True)
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/b.PNG", "PNG"),
        ("gs://b/x.npy", "NPY"),
        ("x.tfrecord", "TFRecord"),
        ("x.tfrecord.gz", "TFRecord"),
        ("multi_mnist-test.tfrecord-00000-of-00001", "TFRecord"),
        ("x.jpg", None),
        ("a.tfrecord/x", None),
    ],
)
def test_kinds_by_name(path, kind):
    assert reading.kind_of(path) == kind


def test_stacks_are_cut_and_joined_to_full_chunks(tmp_path):
    pixels = hand_made.pictures(3 * CHUNK_SIZE + 10)
    parts = {"a": pixels[:10], "b": pixels[10 : CHUNK_SIZE + 30], "c": pixels[CHUNK_SIZE + 30 :]}
    files = []
    for name, part in parts.items():
        files.append(tmp_path / f"{name}.npy")
        np.save(files[-1], part)
    chunks, refused = read(*files)
    assert not refused
    assert [len(chunk) for chunk in chunks] == [CHUNK_SIZE, CHUNK_SIZE, CHUNK_SIZE, 10]
    found = images_of(chunks)
    assert len(found) == len(pixels)
    for file, part in zip(files, parts.values(), strict=True):
        for record, picture in enumerate(part):
            np.testing.assert_array_equal(found[str(file), record], picture)


def test_types_are_not_mixed_in_a_chunk(tmp_path):
    pixels = hand_made.pictures(6)
    np.save(tmp_path / "a.npy", pixels[:2])
    np.save(tmp_path / "b.npy", pixels[2:4].astype(np.float32) / 255)
    np.save(tmp_path / "c.npy", pixels[4:])
    chunks, _ = read(*(tmp_path / f"{name}.npy" for name in "abc"))
    assert [chunk.images.dtype for chunk in chunks] == [np.uint8, np.float32, np.uint8]


def test_png_files_are_read_together(tmp_path):
    pixels = hand_made.pictures(5)
    files = []
    for index, picture in enumerate(pixels):
        files.append(tmp_path / f"{index}.png")
        PIL.Image.fromarray(picture[..., 0]).save(files[-1])
    files[3].write_bytes(b"not a picture")
    chunks, refused = read(*files, tmp_path / "missing.png", tmp_path / "x.txt")
    assert [len(chunk) for chunk in chunks] == [4]
    for (file, record), image in images_of(chunks).items():
        assert record == 0
        np.testing.assert_array_equal(image, pixels[files.index(type(files[0])(file))])
    reasons = {refusal.file: refusal for refusal in refused}
    assert reasons[str(files[3])].reason == "must be a PNG image, got 13 bytes of something else"
    assert reasons[str(tmp_path / "missing.png")].reason == "cannot be read: No such file or directory"
    assert reasons[str(tmp_path / "x.txt")].reason == "must be named *.png, *.npy or *.tfrecord*"


@pytest.mark.parametrize(("suffix", "compression"), [("", ""), (".gz", "GZIP")])
def test_records(tmp_path, suffix, compression):
    pixels = hand_made.pictures(CHUNK_SIZE + 5)
    data = [picture.tobytes() for picture in pixels]
    data[7] = b"short"
    file = tmp_path / f"x.tfrecord{suffix}"
    hand_made.write_records(file, data, compression)
    chunks, refused = read(file)
    found = images_of(chunks)
    assert len(found) == len(pixels) - 1
    for record in (0, 6, 8, CHUNK_SIZE, CHUNK_SIZE + 4):
        np.testing.assert_array_equal(found[str(file), record], pixels[record])
    assert [(refusal.file, refusal.record) for refusal in refused] == [(str(file), 7)]


@pytest.mark.parametrize("broken", [0, 3, CHUNK_SIZE, CHUNK_SIZE + 2])
def test_records_before_a_corrupted_one_are_kept(tmp_path, broken):
    pixels = hand_made.pictures(CHUNK_SIZE + 5)
    file = tmp_path / "x.tfrecord"
    hand_made.write_records(file, [picture.tobytes() for picture in pixels])
    data = bytearray(file.read_bytes())
    size = len(data) // len(pixels)
    data[broken * size + 20] ^= 0xFF
    file.write_bytes(data)
    chunks, refused = read(file)
    assert sorted(record for _, record in images_of(chunks)) == list(range(broken))
    (refusal,) = refused
    assert refusal.record == broken
    assert refusal.reason.startswith("corrupted or truncated record")


def _tfrecord(tmp_path, number=CHUNK_SIZE + 5, compression=""):
    """The bytes of a TFRecord of some images, and the images."""
    pixels = hand_made.pictures(number)
    hand_made.write_records(tmp_path / "whole", [picture.tobytes() for picture in pixels], compression)
    return (tmp_path / "whole").read_bytes(), pixels


@pytest.mark.parametrize("kept", [1, 11, 12, 40, -1])
@pytest.mark.parametrize("before", [0, 3, CHUNK_SIZE])
def test_what_a_cut_tfrecord_has_lost_is_told(tmp_path, kept, before):
    """However few bytes of a record are left, also of the number of bytes that it begins with."""
    data, _ = _tfrecord(tmp_path)
    size = len(data) // (CHUNK_SIZE + 5)
    file = tmp_path / "x.tfrecord"
    file.write_bytes(data[: before * size + kept % size])
    chunks, refused = read(file)
    assert sorted(record for _, record in images_of(chunks)) == list(range(before))
    (refusal,) = refused
    assert (refusal.file, refusal.record) == (str(file), before)
    assert refusal.reason.startswith("corrupted or truncated record")


@pytest.mark.parametrize("cut", [1, 8, 400])
def test_what_a_cut_gzip_file_has_lost_is_told(tmp_path, cut):
    data, pixels = _tfrecord(tmp_path, compression="GZIP")
    file = tmp_path / "x.tfrecord.gz"
    file.write_bytes(data[:-cut])
    chunks, refused = read(file)
    found = images_of(chunks)
    assert sorted(record for _, record in found) == list(range(len(found)))
    (refusal,) = refused
    assert refusal.record == len(found)
    assert (len(found) == len(pixels)) == (cut <= 8)  # the end of gzip data is its checksum


def test_gzip_data_that_was_damaged_or_goes_on(tmp_path):
    data, pixels = _tfrecord(tmp_path, compression="GZIP")
    file = tmp_path / "x.tfrecord.gz"
    file.write_bytes(data + data)  # two members are as one
    chunks, refused = read(file)
    assert len(images_of(chunks)) == 2 * len(pixels)
    assert not refused
    for damaged in (data[:-6] + b"xx" + data[-4:], data + b"more"):
        file.write_bytes(damaged)
        chunks, refused = read(file)
        assert [refusal.record for refusal in refused] == [len(images_of(chunks))]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.tfrecord", LFS, "must be a TFRecord, got a pointer of Git LFS, whose file `git lfs pull` fetches"),
        ("x.tfrecord.gz", LFS, "must be gzip data, as its name says, got a pointer of Git LFS, whose file `git lfs"),
        ("x.tfrecord", "gzip", "must be a TFRecord, got gzip data, whose name must end in .gz"),
        ("x.tfrecord.gz", "plain", "must be gzip data, as its name says, got none"),
        ("x.tfrecord", testing_png.BAD["JPEG"], "must be a TFRecord, got a JPEG image"),
        ("x.tfrecord", b"", "holds no record"),
        ("x.tfrecord.gz", b"", "must be gzip data, as its name says, got none"),
        ("x.tfrecord.gz", gzip.compress(b"", mtime=0), "holds no record"),
        ("x.npy", LFS, "cannot be read as an NPY array, got a pointer of Git LFS"),
        ("x.png", LFS, "must be a PNG image, got a pointer of Git LFS"),
    ],
)
def test_files_that_are_not_what_their_name_says_stop_nothing(tmp_path, name, content, reason):
    if isinstance(content, str):
        content, _ = _tfrecord(tmp_path, 5, "GZIP" if content == "gzip" else "")
    (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "good.npy", hand_made.pictures(3))
    hand_made.write_records(tmp_path / "good.tfrecord", [hand_made.pictures(1)[0].tobytes()])
    chunks, refused = read(tmp_path / name, tmp_path / "good.npy", tmp_path / "good.tfrecord")
    assert sum(map(len, chunks)) == 4
    (refusal,) = refused
    assert refusal.file == str(tmp_path / name)
    assert refusal.record == (0 if name.endswith("png") else None)
    assert refusal.reason.startswith(reason)


@pytest.mark.parametrize("suffix", ["png", "npy", "tfrecord"])
def test_folders_and_pipes_are_refused(tmp_path, suffix):
    (tmp_path / f"folder.{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    chunks, refused = read(tmp_path / f"folder.{suffix}", tmp_path / f"pipe.{suffix}")
    assert not chunks
    assert [refusal.reason for refusal in refused] == [
        "cannot be read: it is a folder",
        "cannot be read: it is no file",
    ]


def test_numbers_that_are_1_only_once_they_are_rounded(tmp_path):
    images = np.full((3, *SHAPE), 0.5)
    images[1, 0, 0] = 1.0 + 1e-15
    np.save(tmp_path / "a.npy", images)
    chunks, refused = read(tmp_path / "a.npy")
    assert [record for _, record in images_of(chunks)] == [0, 2]
    assert chunks[0].images.dtype == np.float32
    assert [(refusal.record, refusal.reason) for refusal in refused] == [
        (1, "must lie in [0, 1] in floating point, got values from 0.5 to 1.000000000000001")
    ]


def test_files_of_beams_file_systems(tmp_path, monkeypatch):
    """A file that isn't local goes through Beam; here one that Beam finds under another name."""
    file = tmp_path / "x.tfrecord"
    pixels = hand_made.pictures(2)
    hand_made.write_records(file, [picture.tobytes() for picture in pixels])
    np.save(tmp_path / "x.npy", pixels)
    opened = reading.FileSystems.open

    def elsewhere(path, **arguments):
        return opened(path.replace("far://", f"{tmp_path}/"), **arguments)

    monkeypatch.setattr(reading.FileSystems, "open", elsewhere)
    chunks, refused = read("far://x.tfrecord", "far://x.npy", "far://missing.tfrecord")
    found = images_of(chunks)
    for file in ("far://x.tfrecord", "far://x.npy"):
        np.testing.assert_array_equal(found[file, 1], pixels[1])
    assert [refusal.file for refusal in refused] == ["far://missing.tfrecord"]
