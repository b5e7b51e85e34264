"""A data set that TensorFlow Datasets loads without this package: `tfds.builder_from_directory(folder)`.

    scenes-train.tfrecord-00000-of-00025    a file for each shard
    dataset_info.json, features.json        written by TFDS

An example has `image` uint8 [H, W, C], `id` and `count` int64, and for each of the n objects that can be seen a row of
`boxes` float32 [n, 4], tight boxes; `windows` float32 [n, 4], those in which the model draws; and `masks` bool
[n, H, W].  Boxes are `[ymin, xmin, ymax, xmax]` as fractions of the canvas; windows may reach beyond it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from asr_tf.labelled.records import RecordsFolder
from asr_tf.labelled.scenes import LabelledScenes

__all__ = ["TFDSFolder"]

_SPLIT = "train"


class TFDSFolder(RecordsFolder):
    """See the module."""

    name = f"scenes-{_SPLIT}"

    @functools.cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        height, width, _ = self.image_shape
        zlib = tfds.features.Encoding.ZLIB
        return tfds.features.FeaturesDict(
            {
                "id": tfds.features.Scalar(dtype=np.int64),
                "image": tfds.features.Image(shape=self.image_shape, encoding_format="png"),
                "count": tfds.features.Scalar(dtype=np.int64),
                "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
                "windows": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
                "masks": tfds.features.Tensor(shape=(None, height, width), dtype=np.bool_, encoding=zlib),
            }
        )

    def examples(self, scenes: LabelledScenes) -> Iterator[bytes]:
        """See the base."""
        height, width, _ = self.image_shape
        objects = scenes.objects
        boxes = objects.boxes_px / np.array([height, width] * 2)
        serializer = ExampleSerializer(self._features.get_serialized_info())
        for scene in scenes.each():
            encoded = self._features.encode_example(
                {
                    "id": scene.id,
                    "image": scene.image,
                    "count": scene.count,
                    "boxes": list(boxes[scene.rows]),
                    "windows": objects.windows[scene.rows],
                    "masks": objects.masks[scene.rows],
                }
            )
            # TFDS's own serialization orders the features differently in each process.
            yield serializer.get_tf_example(encoded).SerializeToString(deterministic=True)

    def finish(self, scenes_of_shards: Sequence[int]) -> None:
        """See the base."""
        size = sum(path.stat().st_size for shard in range(self.num_shards) for path in self.parts(shard))
        split = tfds.core.SplitInfo(name=_SPLIT, shard_lengths=list(scenes_of_shards), num_bytes=size)
        tfds.folder_dataset.write_metadata(
            data_dir=self.folder,
            features=self._features,
            split_infos=[split],
            description="Scenes drawn by asr_sample, with tight boxes, windows and masks of their objects.",
            check_data=False,  # it would print
        )
