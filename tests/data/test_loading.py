import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import gin
import numpy as np
import pytest

from asr_tf.data import DataSource, load_scenes


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
        ("multi_sprites/count13", "validation", "split='validation' is unknown; choose one of .'train', 'test'"),
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
    Prepared.builder_config = SimpleNamespace(settings=SimpleNamespace(most_objects=3))
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


def test_source_from_gin(tmp_path):
    np.save(tmp_path / "images.npy", np.full((40, 4, 6), 9, np.uint8))
    gin.parse_config(
        ["data.name = 'image_folder'", f"data.path = '{tmp_path}'", "data.num_train = 7", "data.num_test = 3"]
    )
    source = DataSource()
    assert source.name == "image_folder"
    assert len(source.load("train")) == 7
    assert len(source.load("test")) == 3
    gin.bind_parameter("data.num_train", None)
    assert len(DataSource().load("train")) == 36
    gin.bind_parameter("data.num_train", 0)
    with pytest.raises(ValueError, match="data.num_train must be a whole number, 1 or more, got 0"):
        DataSource().load("train")


def test_name_is_required():
    with pytest.raises(RuntimeError, match=r"Required bindings for `data` not provided.*\['name'\]"):
        DataSource()


def test_import_leaves_tfds_alone():
    """TFDS takes seconds to import; whoever has images of their own never needs it."""
    code = "import sys, asr_tf.data; print('tensorflow_datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
