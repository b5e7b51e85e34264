from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
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
    assert reasons[str(files[3])].reason.endswith("got 13 bytes")
    assert reasons[str(tmp_path / "missing.png")].reason.startswith("cannot be read: ")
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


@pytest.mark.parametrize("broken", [3, CHUNK_SIZE + 2])
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
