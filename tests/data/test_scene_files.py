"""The files of gin_configs/scenes: each names a data set that there is, with its canvas and its counts."""

import importlib
import pathlib
import re

import gin
import pytest

import asr_tf.constraints  # noqa: F401  (registers the rules)
from asr_tf.data import DataSource, loading

FILES = sorted((pathlib.Path(__file__).parents[2] / "gin_configs" / "scenes").glob("*.gin"))


@pytest.fixture(autouse=True)
def clean_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scene_file_agrees_with_its_data_set(path):
    text = path.read_text()
    assert text.startswith("# ")
    with gin.unlock_config():
        gin.parse_config_file(str(path), skip_unknown=True)
    name, _, config = DataSource().name.partition("/")
    if name == "image_folder":
        assert "COUNTS = " not in re.sub("#.*", "", text)  # which users state
        return
    assert "Xu et al." in text.split("\n\n")[0]
    module, class_name = loading._BUILDERS[name]
    settings = getattr(importlib.import_module(module), class_name).builder_configs[config].settings
    assert gin.query_parameter("COUNTS/macro.value") == settings.counts
    assert f"ASRModel.canvas_size = {settings.canvas_size} " in text


def test_every_data_set_of_the_paper_has_a_file():
    names = {path.stem for path in FILES}
    paper = {f"{d}_{c}" for d in ("mnist", "dsprites") for c in ("count13", "count14", "count24", "overlap3")}
    assert names >= paper | {"sprites_count13", "image_folder"}
