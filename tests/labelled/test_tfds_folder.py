from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds
import testing_labelled

from asr_tf.labelled import shards
from asr_tf.labelled.tfds_folder import TFDSFolder

NUMBER = 40


def test_tfds_loads_every_scene_and_object(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SCENES_OF_A_SHARD", 16)
    testing_labelled.write(TFDSFolder, tmp_path, NUMBER)
    builder = tfds.builder_from_directory(tmp_path)
    assert builder.info.splits["train"].num_examples == NUMBER
    assert builder.info.splits["train"].shard_lengths == [16, 16, 8]
    assert isinstance(builder.info.features["boxes"].feature, tfds.features.BBoxFeature)
    known, images = testing_labelled.drawn(0, NUMBER), testing_labelled.levels(NUMBER)
    examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert [example["id"] for example in examples] == list(range(1, NUMBER + 1))
    for row, objects in enumerate(testing_labelled.labels(NUMBER)):
        example = examples[row]
        assert example["count"] == known["count"][row]
        np.testing.assert_array_equal(example["image"], images[row])
        masks = [mask for _, mask, _, _ in objects]
        np.testing.assert_array_equal(example["masks"], np.reshape(masks, (-1, *testing_labelled.CANVAS)))
        assert example["masks"].dtype == np.bool_
        boxes = np.reshape([box for _, _, box, _ in objects], (-1, 4)) / [12, 14, 12, 14]
        np.testing.assert_allclose(example["boxes"], boxes, rtol=1e-6)
        windows = np.reshape([window for *_, window in objects], (-1, 4))
        np.testing.assert_array_equal(example["windows"], windows)
