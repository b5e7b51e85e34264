import numpy as np
import PIL.Image
import pytest

from asr_tf.data.image_folder import load_image_folder


def _png(path, pixels):
    PIL.Image.fromarray(np.asarray(pixels)).save(path)


def _grey(value, height=6, width=8):
    return np.full((height, width), value, np.uint8)


def test_png_and_npy_side_by_side(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    _png(tmp_path / "train" / "b.png", _grey(7))
    np.save(tmp_path / "train" / "a.npy", _grey(3))
    np.save(tmp_path / "train" / "c.npy", np.stack([_grey(10), _grey(11)]))
    np.save(tmp_path / "train" / "d.npy", np.full((1, 6, 8, 1), 0.5, np.float32))
    np.save(tmp_path / "train" / "d2.npy", _grey(200)[:, :, None])
    _png(tmp_path / "train" / "e.png", _grey(1).astype(bool))
    (tmp_path / "train" / "notes.txt").write_text("not an image")
    _png(tmp_path / "test" / "x.PNG", _grey(9))
    train, test = (load_image_folder(tmp_path, split) for split in ("train", "test"))
    assert train.images.dtype == np.uint8
    assert train.canvas_size == (6, 8)
    assert train.images[:, 0, 0, 0].tolist() == [3, 7, 10, 11, 128, 200, 255]
    assert test.images[:, 0, 0, 0].tolist() == [9]
    assert train.counts is train.boxes is train.ink_boxes is train.labels is None


def test_masks_of_zeros_and_ones_are_told(tmp_path):
    np.save(tmp_path / "all.npy", np.eye(6, dtype=np.uint8))
    np.save(tmp_path / "more.npy", np.eye(6, dtype=np.uint8))
    with pytest.raises(ValueError, match="black images only: the brightest pixel is 1 of 255"):
        load_image_folder(tmp_path, "train")


def test_home_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "all.npy", np.full((5, 2, 2), 9, np.uint8))
    assert len(load_image_folder("~/mine", "train")) == 4


def test_one_folder_is_split_in_ten(tmp_path):
    images = np.arange(95, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    np.save(tmp_path / "all.npy", images)
    train, test = (load_image_folder(tmp_path, split).images[:, 0, 0, 0] for split in ("train", "test"))
    assert (len(train), len(test)) == (85, 10)
    assert sorted([*train, *test]) == list(range(95))
    assert np.ptp(test) > 40  # spread over the folder
    np.testing.assert_array_equal(test, load_image_folder(tmp_path, "test").images[:, 0, 0, 0])
    assert set(np.diff(train)) > {1}


def _break(folder, what):
    if what == "colour":
        _png(folder / "bad.png", np.zeros((6, 8, 3), np.uint8))
    elif what == "deep":
        _png(folder / "bad.png", np.zeros((6, 8), np.uint16))
    elif what == "size":
        _png(folder / "bad.png", _grey(1, 6, 9))
    elif what == "unreadable":
        (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    elif what == "truncated":
        _png(folder / "whole.png", np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8))
        (folder / "bad.png").write_bytes((folder / "whole.png").read_bytes()[:900])
        (folder / "whole.png").unlink()
    elif what == "no npy":
        (folder / "bad.npy").write_bytes(b"nothing")
    elif what == "damaged header":
        np.save(folder / "bad.npy", _grey(1))
        (folder / "bad.npy").write_bytes((folder / "bad.npy").read_bytes().replace(b"}", b" "))
    elif what == "damaged archive":
        (folder / "bad.npy").write_bytes(b"PK\x03\x04junk")
    elif what == "archive":
        np.savez(folder / "bad.npz", _grey(1))
        (folder / "bad.npz").rename(folder / "bad.npy")
    elif what == "pickle":
        np.save(folder / "bad.npy", np.array([{}]), allow_pickle=True)
    else:
        array = {
            "nan": np.full((2, 6, 8), np.nan),
            "range": np.full((6, 8), 1.5),
            "integers": np.zeros((6, 8), np.int64),
            "rank": np.zeros(6, np.uint8),
            "colours": np.zeros((6, 8, 3), np.uint8),
            "no pixel": np.zeros((2, 0, 8), np.float32),
            "channels": np.zeros((2, 6, 8, 3), np.uint8),
        }[what]
        np.save(folder / "bad.npy", array)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("colour", "bad.png must be a grey 8-bit image, got PNG mode 'RGB'"),
        ("deep", "bad.png must be a grey 8-bit image, got PNG mode 'I;16'"),
        ("size", r"one size .height x width.: .*a.png is 6 x 8 px, .*bad.png is 6 x 9 px"),
        ("unreadable", "bad.png cannot be read as a PNG image"),
        ("truncated", "bad.png cannot be read as a PNG image"),
        ("no npy", "bad.npy cannot be read as an NPY array"),
        ("damaged header", "bad.npy cannot be read as an NPY array"),
        ("damaged archive", "bad.npy cannot be read as an NPY array"),
        ("colours", r"bad.npy must be grey, \[H, W\] or \[N, H, W\], got \[6, 8, 3\]: is the last axis colour"),
        ("archive", "bad.npy cannot be read as an NPY array: it is an archive of several"),
        ("no pixel", r"bad.npy must hold at least one image of one pixel or more, got shape \[2, 0, 8, 1\]"),
        ("pickle", "bad.npy cannot be read as an NPY array"),
        ("nan", "bad.npy must not hold NaN; image 0 does"),
        ("range", r"bad.npy in floating point must lie in \[0, 1\], got values from 1.5"),
        ("integers", "bad.npy must be uint8 or floating point, got dtype int64"),
        ("rank", r"bad.npy must have shape \[N, H, W, 1\] .grey., got \[6\]"),
        ("channels", r"bad.npy must have shape .* got \[2, 6, 8, 3\]"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, what, message):
    _png(tmp_path / "a.png", _grey(1))
    _break(tmp_path, what)
    with pytest.raises((ValueError, TypeError), match=message) as error:
        load_image_folder(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        load_image_folder(tmp_path, "train")
    with pytest.raises(ValueError, match="nowhere' is not a folder"):
        load_image_folder(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="split='validation' is unknown"):
        load_image_folder(tmp_path, "validation")
    _png(tmp_path / "a.png", _grey(9))
    with pytest.raises(ValueError, match="at least 2 images"):
        load_image_folder(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="has no subfolder 'test'"):
        load_image_folder(tmp_path, "train")
