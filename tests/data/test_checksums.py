"""The bytes of every drawn data set: another version of the package must draw the same scenes."""

import importlib
import zlib

import pytest
import testing_data

from asr_tf.data import loading, multi_object, synthesize

# CRC-32 of the first 600 training scenes and test scenes (more than a chunk), from images to labels.
CHECKSUMS = {
    ("multi_dsprites", "count13"): "9a60f868",
    ("multi_dsprites", "count14"): "e6bc09a9",
    ("multi_dsprites", "count24"): "2463dc69",
    ("multi_dsprites", "overlap3"): "085f0255",
    ("multi_mnist", "count13"): "faedd988",
    ("multi_mnist", "count14"): "9cb40e79",
    ("multi_mnist", "count24"): "0f99ec55",
    ("multi_mnist", "overlap3"): "70fde960",
    ("multi_sprites", "count13"): "5ff62c19",
    ("multi_sprites", "count14"): "c64ce1d7",
    ("multi_sprites", "count24"): "c155a48e",
    ("multi_sprites", "overlap3"): "695c3313",
}


def _builder(name):
    module, class_name = loading._BUILDERS[name]
    return getattr(importlib.import_module(module), class_name)


def test_no_data_set_is_left_out():
    assert set(CHECKSUMS) == {(name, config) for name in loading._BUILDERS for config in _builder(name).builder_configs}


@pytest.mark.parametrize(("name", "config"), CHECKSUMS)
def test_scenes_are_the_same_bytes_as_ever(name, config):
    folder = testing_data.originals_dir(name)
    builder = _builder(name)
    checksum = 0
    for split, seed in multi_object._SEEDS.items():
        bank = builder._bank(None, split, folder)
        settings = builder.builder_configs[config].settings
        scenes = synthesize(bank.images, settings, 600, seed, labels=bank.labels)
        for key in ("images", "counts", "boxes", "ink_boxes", "labels"):
            checksum = zlib.crc32(getattr(scenes, key).tobytes(), checksum)
    assert f"{checksum:08x}" == CHECKSUMS[name, config]
