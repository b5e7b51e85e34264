import os

import numpy as np
import PIL.Image
import pytest
import testing_png

from asr_tf.data.image_folder import ImageFolder


def load_image_folder(path, split, **options):
    return ImageFolder(path).load(split, **options)


SPLITS = ("train", "validation", "test")


def _png(path, pixels):
    PIL.Image.fromarray(np.asarray(pixels)).save(path)


def _grey(value, height=6, width=8):
    return np.full((height, width), value, np.uint8)


def test_png_and_npy_side_by_side(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
    np.save(tmp_path / "validation" / "v.npy", _grey(8))
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
    assert train.counts is train.boxes is train.ink_boxes is train.labels is train.masks is None


def _random(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_png_files_gives_the_exact_arrays(tmp_path, channels):
    for split in SPLITS:
        (tmp_path / split).mkdir()
    for seed, split in enumerate(SPLITS):
        images = _random(5, 6, 8, channels, seed=seed)
        for index, image in enumerate(images):
            _png(tmp_path / split / f"{index}.png", image[..., 0] if channels == 1 else image)
        loaded = load_image_folder(tmp_path, split)
        assert loaded.images.dtype == np.uint8 and loaded.channels == channels
        np.testing.assert_array_equal(loaded.images, images)


def test_npy_files_of_rgb_images(tmp_path):
    """One image, many, bytes and fractions; the smallest image without an axis N is 4 x 4 pixels."""
    images = _random(6, 4, 4, 3)
    np.save(tmp_path / "a.npy", images[0])
    np.save(tmp_path / "b.npy", images[1:3])
    np.save(tmp_path / "c.npy", images[3] / 255.0)
    _png(tmp_path / "d.png", images[4])
    np.save(tmp_path / "e.npy", np.asfortranarray(images[5:6]))
    loaded = [load_image_folder(tmp_path, split).images for split in SPLITS]
    assert sorted(map(bytes, np.concatenate(loaded))) == sorted(map(bytes, images))


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (3, 8, 3, 1), (8, 3, 1), (5, 8, 2)])
def test_axes_that_are_small_are_no_colours(tmp_path, shape):
    """With an axis N and C nothing is guessed; a last axis of 1 is C, and one of 2 is width."""
    array = _random(*shape)
    for split in SPLITS:
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "a.npy", array)
    wanted = {(8, 3, 1): (1, 8, 3, 1), (5, 8, 2): (5, 8, 2, 1)}.get(shape, shape)
    np.testing.assert_array_equal(load_image_folder(tmp_path, "train").images, array.reshape(wanted))


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_grey_and_rgb_in_one_folder_are_refused(tmp_path, kind):
    _png(tmp_path / "a.png", _grey(9))
    if kind == "png":
        _png(tmp_path / "b.png", _random(6, 8, 3))
    else:
        np.save(tmp_path / "b.npy", _random(2, 6, 8, 3))
    with pytest.raises(ValueError, match=rf"all grey or all RGB: .*/a.png is grey, .*/b.{kind} is RGB\.$") as error:
        load_image_folder(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_masks_of_zeros_and_ones_are_told(tmp_path):
    np.save(tmp_path / "all.npy", np.eye(6, dtype=np.uint8))
    np.save(tmp_path / "more.npy", np.eye(6, dtype=np.uint8))
    with pytest.raises(ValueError, match="black images only: the brightest pixel is 1 of 255"):
        load_image_folder(tmp_path, "train")


def test_home_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "all.npy", np.full((5, 2, 2), 9, np.uint8))
    assert [len(load_image_folder("~/mine", split)) for split in SPLITS] == [3, 1, 1]


def test_one_folder_is_split_in_ten(tmp_path):
    images = np.arange(95, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    np.save(tmp_path / "all.npy", images)
    train, validation, test = (load_image_folder(tmp_path, split).images[:, 0, 0, 0] for split in SPLITS)
    assert (len(train), len(validation), len(test)) == (77, 8, 10)
    assert sorted([*train, *validation, *test]) == list(range(95))
    assert np.ptp(test) > 40  # spread over the folder
    assert train.max() < validation.min()  # the last ones
    np.testing.assert_array_equal(test, load_image_folder(tmp_path, "test").images[:, 0, 0, 0])
    assert set(np.diff(train)) > {1}


def test_subfolders_are_the_splits(tmp_path):
    """A subfolder validation is taken as it is; without one, the last images of train are cut off."""
    _png(tmp_path / "aside.png", _grey(250))  # which is in none
    for split, value in (("train", 10), ("test", 50)):
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "all.npy", np.stack([_grey(value + i) for i in range(12)]))

    def values(split, **options):
        return load_image_folder(tmp_path, split, **options).images[:, 0, 0, 0].tolist()

    assert (values("train"), values("validation")) == (list(range(10, 21)), [21])
    assert values("test") == list(range(50, 62))
    (tmp_path / "validation").mkdir()
    with pytest.raises(ValueError, match=r"validation' holds no images"):
        values("validation")
    np.save(tmp_path / "validation" / "all.npy", np.stack([_grey(90), _grey(91)]))
    assert values("validation", num_validation=1) == [90, 91]
    assert values("train", num_validation=1) == list(range(10, 22))
    assert values("test") == list(range(50, 62))


def test_number_of_validation_images(tmp_path):
    np.save(tmp_path / "all.npy", np.arange(2, 202, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8))
    for wanted, held_out in ((1, 1), (7, 7), (18, 18), (1000, 18)):
        loaded = [load_image_folder(tmp_path, split, num_validation=wanted).images for split in SPLITS]
        assert [len(images) for images in loaded] == [180 - held_out, held_out, 20]
    with pytest.raises(ValueError, match="data.num_validation must be a whole number, 1 or more, got 0"):
        load_image_folder(tmp_path, "validation", num_validation=0)


def _break(folder, what):
    if what == "png":
        (folder / "bad.png").write_bytes(testing_png.BAD["16 bits"])
    elif what == "size":
        _png(folder / "bad.png", _grey(1, 6, 9))
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
            "range": np.stack([np.zeros((6, 8)), np.linspace(0, 1.000001, 48).reshape(6, 8)]),
            "integers": np.zeros((6, 8), np.int64),
            "rank": np.zeros(6, np.uint8),
            "transparency": np.zeros((6, 8, 4), np.uint8),
            "low": np.zeros((3, 8, 3), np.uint8),
            "narrow": np.zeros((8, 3, 3), np.uint8),
            "no pixel": np.zeros((2, 0, 8), np.float32),
            "channels": np.zeros((2, 6, 8, 4), np.uint8),
            "deep npy": np.zeros((6, 8, 3), np.uint16),
        }[what]
        np.save(folder / "bad.npy", array)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("png", "bad.png must be a grey or RGB PNG image of at most 8 bits .*, got one that is grey of 16 bits"),
        ("size", r"one size .height x width.: .*a.png is 6 x 8 px, .*bad.png is 6 x 9 px"),
        ("no npy", "bad.npy cannot be read as an NPY array"),
        ("damaged header", "bad.npy cannot be read as an NPY array"),
        ("damaged archive", "bad.npy cannot be read as an NPY array"),
        ("transparency", r"bad.npy must be grey, .*, or RGB, \[H, W, 3\], got \[6, 8, 4\]: is the last axis colour"),
        ("low", r"bad.npy must have shape .* got \[3, 8, 3\]: is the last axis colour or width"),
        ("narrow", r"bad.npy must have shape .* got \[8, 3, 3\]: is the last axis colour or width"),
        ("deep npy", "bad.npy must be uint8 or floating point, got dtype uint16"),
        ("archive", "bad.npy cannot be read as an NPY array, got a zip archive"),
        ("no pixel", r"bad.npy must hold at least one image of one pixel or more, got shape \[2, 0, 8\]"),
        ("pickle", "bad.npy must be uint8 or floating point, got dtype object"),
        ("nan", r"bad.npy must not hold NaN \(image 0\)\.$"),
        ("range", r"bad.npy must lie in \[0, 1\] in floating point, got values from 0.0 to 1.000001 \(image 1\)\.$"),
        ("integers", "bad.npy must be uint8 or floating point, got dtype int64"),
        ("rank", r"bad.npy must have shape \[N, H, W, 1\] .grey. or \[N, H, W, 3\] .RGB., got \[6\]"),
        ("channels", r"bad.npy must have shape .* got \[2, 6, 8, 4\]"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, what, message):
    _png(tmp_path / "a.png", _grey(1))
    _break(tmp_path, what)
    with pytest.raises(ValueError, match=message) as error:
        load_image_folder(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        load_image_folder(tmp_path, "train")
    with pytest.raises(ValueError, match="nowhere' is not a folder"):
        load_image_folder(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match=r"split='val' is unknown; choose one of .'train', 'validation', 'test'"):
        load_image_folder(tmp_path, "val")
    for number in (1, 2):
        _png(tmp_path / f"{number}.png", _grey(9))
        for split in SPLITS:
            with pytest.raises(ValueError, match=f"must hold at least 3 images, one each .* for test, got {number}"):
                load_image_folder(tmp_path, split)
    _png(tmp_path / "3.png", _grey(9))
    assert [len(load_image_folder(tmp_path, split)) for split in SPLITS] == [1, 1, 1]
    for name, missing in (("validation", "train"), ("train", "test")):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=f"has no subfolder '{missing}' beside those of other splits"):
            load_image_folder(tmp_path, "train")
    (tmp_path / "validation").rmdir()
    (tmp_path / "test").mkdir()
    _png(tmp_path / "train" / "1.png", _grey(9))
    with pytest.raises(ValueError, match=r"at least 2 images \(one is held out\), got 1 in '.*/train'"):
        load_image_folder(tmp_path, "train")


def _in_all_splits(folder, name, data):
    for split in SPLITS:
        (folder / split).mkdir()
        (folder / split / name).write_bytes(data)


@pytest.mark.parametrize("name", testing_png.CASES)
def test_png_files_of_every_kind(tmp_path, name):
    """The same cases as asr_batch_infer is asked, in `tests/export/batch/test_one_reader.py`."""
    data, pixels = testing_png.CASES[name]
    _in_all_splits(tmp_path, "image.png", data)
    if pixels is not None:
        images = load_image_folder(tmp_path, "train").images
        np.testing.assert_array_equal(images, pixels.reshape(1, *testing_png.SIZE, -1))
        return
    with pytest.raises(ValueError, match=r"^.*/train/image\.png .*\.$") as error:
        load_image_folder(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_what_was_found_and_what_was_left_out_is_told(tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for index in range(3):
        _png(folder / f"{index}.png", _grey(20 + index))
    np.save(folder / "more.npy", np.stack([_grey(9)] * 5))
    source = ImageFolder(folder)
    for split in SPLITS:
        source.load(split)
    assert capsys.readouterr().err == f"Image folder {folder}: 8 grey images of 6 x 8 px in 4 files.\n"
    for index in range(9):
        (folder / f"{index}.jpg").write_bytes(b"anything")
    (folder / "9.BMP").write_bytes(b"anything")
    for name in ("a", "b", "c", "d", "empty", ".hidden"):
        (folder / name).mkdir()
        if name != "empty":
            _png(folder / name / "x.png", _grey(9))
    ImageFolder(folder).load("train")
    assert capsys.readouterr().err == (
        f"Image folder {folder}: 8 grey images of 6 x 8 px in 4 files; left out: 9 *.jpg, 1 *.BMP, a/, b/, c/, "
        "and 1 more (only *.png and *.npy in the folder itself are read).\n"
    )


def test_images_beside_the_splits_are_told_once(tmp_path, capsys):
    _in_all_splits(tmp_path, "a.png", testing_png.GOOD["grey"].data)
    _png(tmp_path / "aside.png", _grey(250))
    source = ImageFolder(tmp_path)
    for split in SPLITS:
        source.load(split)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"Left out beside the splits in {tmp_path}: 1 *.png."
    assert lines[1:] == [f"Image folder {tmp_path}/{split}: 1 grey image of 6 x 8 px in 1 file." for split in SPLITS]


def test_a_folder_of_other_images_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"anything")
    (tmp_path / "notes.txt").write_bytes(b"anything")
    (tmp_path / "deeper").mkdir()
    _png(tmp_path / "deeper" / "a.png", _grey(1))
    with pytest.raises(ValueError, match=r"holds no images \(\*.png or \*.npy\) itself, but 1 \*.jpg, deeper/\.$"):
        load_image_folder(tmp_path, "train")


def test_what_systems_leave_is_passed_over(tmp_path):
    for index in range(3):
        _png(tmp_path / f"{index}.png", _grey(9))
        (tmp_path / f"._{index}.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (tmp_path / "Thumbs.db").write_bytes(b"anything")
    (tmp_path / "folder.png").mkdir()
    assert [len(load_image_folder(tmp_path, split)) for split in SPLITS] == [1, 1, 1]


def test_a_pipe_is_not_waited_for(tmp_path):
    _png(tmp_path / "a.png", _grey(9))
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png cannot be read: it is no file\.$"):
        load_image_folder(tmp_path, "train")


@pytest.mark.parametrize("name", ["scan[1]", "a\\b", "a*b?", "ä |", "two\nlines", os.fsdecode(b"caf\xe9")])
def test_names_of_any_characters(tmp_path, name, capsys):
    folder = tmp_path / name
    folder.mkdir()
    for index in range(3):
        (folder / f"{name}{index}.png").write_bytes(testing_png.GOOD["grey"].data)
    assert [len(load_image_folder(folder, split)) for split in SPLITS] == [1, 1, 1]
    assert len(capsys.readouterr().err.splitlines()) == 3
    (folder / f"{name}3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png must be a PNG image, got an empty file") as error:
        load_image_folder(folder, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("ground", "told"), [(20, False), (235, True)])
def test_a_bright_ground_is_told(tmp_path, ground, told, capsys):
    images = np.full((10, 6, 8), ground, np.uint8)
    images[:, 2:4, 2:4] = 255 - ground
    np.save(tmp_path / "all.npy", images)
    load_image_folder(tmp_path, "train")
    err = capsys.readouterr().err
    assert (f"Most pixels in {tmp_path} are bright (the median is 235 of 255)" in err) == told
    assert ("invert the images" in err) == told
