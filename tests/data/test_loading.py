import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import gin
import numpy as np
import pytest

from asr_tf.data import DataSource, image_folder, load_scenes


@pytest.fixture(autouse=True)
def clean_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("multi_mnits/count13", "train", "data set='multi_mnits' is unknown .did you mean 'multi_mnist'"),
        ("multi_sprites/count31", "train", "configuration of multi_sprites='count31' is unknown .did you mean 'count1"),
        ("multi_sprites", "train", "configuration of multi_sprites='' is unknown; choose one of .'count13'"),
        ("multi_sprites/count13", "valid", "split='valid' is unknown .*choose one of .'train', 'validation', 'test'"),
        ("image_folder", "train", "image_folder needs the folder of the images: bind data.path"),
    ],
)
def test_wrong_names_end_in_one_line(tmp_path, name, split, message):
    with pytest.raises(ValueError, match=message) as error:
        load_scenes(name, split, tmp_path)
    assert "\n" not in str(error.value)


def test_a_data_set_that_is_prepared_does_not_read_the_originals_again(tmp_path, capsys, monkeypatch):
    class Prepared:
        data_dir = tmp_path / "prepared"

        def __init__(self, **_):
            pass

        builder_configs: ClassVar = {"count13": None}

        def is_prepared(self):
            return True

        def as_dataset(self, **_):
            raise LookupError("is read")

    monkeypatch.setattr("asr_tf.data.multi_mnist.MultiMnist", Prepared)
    Prepared.builder_config = SimpleNamespace(settings=SimpleNamespace(most_objects=3, canvas_size=(4, 4), channels=1))
    Prepared.info = SimpleNamespace(splits={"train": SimpleNamespace(num_examples=30), "test": None})
    with pytest.raises(ValueError, match=r"manual_dir='/not/there' is not a folder\."):
        load_scenes("multi_mnist/count13", "train", manual_dir="/not/there")
    assert capsys.readouterr().err == ""
    with pytest.raises(LookupError, match="is read"):
        load_scenes("multi_mnist/count13", "train", manual_dir=tmp_path)
    assert capsys.readouterr().err == (
        f"Using multi_mnist/count13 as it was prepared in {tmp_path}/prepared; {tmp_path} isn't read "
        "(for other originals give another data_dir).\n"
    )
    with pytest.raises(LookupError, match="is read"):
        load_scenes("multi_mnist/count13", "train")
    assert capsys.readouterr().err == ""


def _write_images(folder, number):
    """Files of one image each, of grey values 2, 3, ... in the order of their names."""
    for i in range(number):
        np.save(folder / f"{i:02d}.npy", np.full((4, 6), i + 2, np.uint8))


def _values(scenes):
    return scenes.images[:, 0, 0, 0].tolist()


def test_source_from_gin(tmp_path):
    _write_images(tmp_path, 40)
    gin.parse_config(
        ["data.name = 'image_folder'", f"data.path = '{tmp_path}'", "data.num_train = 7", "data.num_test = 3"]
    )
    source = DataSource()
    assert source.name == "image_folder"
    assert [len(source.load(split)) for split in ("train", "validation", "test")] == [7, 3, 3]
    gin.bind_parameter("data.num_train", None)
    gin.bind_parameter("data.num_test", None)
    assert [len(DataSource().load(split)) for split in ("train", "validation", "test")] == [33, 3, 4]
    gin.bind_parameter("data.num_validation", 2)
    assert [len(DataSource().load(split)) for split in ("train", "validation", "test")] == [34, 2, 4]
    gin.bind_parameter("data.num_train", 0)
    with pytest.raises(ValueError, match="data.num_train must be a whole number, 1 or more, got 0"):
        DataSource().load("train")
    gin.bind_parameter("data.num_validation", 0)
    with pytest.raises(ValueError, match="data.num_validation must be a whole number, 1 or more, got 0"):
        DataSource().load("validation")
    with pytest.raises(ValueError, match="split='val' is unknown"):
        DataSource().load("val")


def test_no_image_is_in_two_splits_and_none_is_left_out(tmp_path):
    _write_images(tmp_path, 40)
    gin.parse_config(["data.name = 'image_folder'", f"data.path = '{tmp_path}'"])
    values = {split: _values(DataSource().load(split)) for split in ("train", "validation", "test")}
    assert sorted(values["train"] + values["validation"] + values["test"]) == list(range(2, 42))
    # What was the training split before there was one for validation: all but each tenth of the shuffle.
    order = np.random.default_rng(0).permutation(40)
    assert values["train"] + values["validation"] == sorted(set(range(2, 42)) - {i + 2 for i in order[::10]})
    # The limit of the training images takes none from the others.
    gin.bind_parameter("data.num_train", 5)
    assert _values(DataSource().load("train")) == values["train"][:5]
    assert _values(DataSource().load("validation")) == values["validation"]


def test_a_source_reads_a_file_once(tmp_path, monkeypatch):
    _write_images(tmp_path, 20)
    gin.parse_config(["data.name = 'image_folder'", f"data.path = '{tmp_path}'"])
    read = []
    whole = image_folder._read_npy
    monkeypatch.setattr(image_folder, "_read_npy", lambda file: read.append(file.name) or whole(file))
    source = DataSource()
    loaded = [_values(source.load(split)) for split in ("train", "validation", "test")]
    assert len(read) == len(set(read)) == 20
    assert loaded == [_values(DataSource().load(split)) for split in ("train", "validation", "test")]


def test_which_splits_other_training_images_would_change(tmp_path):
    gin.parse_config(["data.name = 'image_folder'", f"data.path = '{tmp_path}'"])

    def depending():
        return [split for split in ("validation", "test") if DataSource().depends_on_training_images(split)]

    assert depending() == ["validation", "test"]
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    assert depending() == ["validation"]
    (tmp_path / "validation").mkdir()
    assert depending() == []
    gin.bind_parameter("data.name", "multi_mnist/count13")
    assert depending() == ["validation"]


def test_name_is_required():
    with pytest.raises(RuntimeError, match=r"Required bindings for `data` not provided.*\['name'\]"):
        DataSource()


def test_import_leaves_tfds_alone():
    """TFDS takes seconds to import; whoever has images of their own never needs it."""
    code = "import sys, asr_tf.data; print('tensorflow_datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
