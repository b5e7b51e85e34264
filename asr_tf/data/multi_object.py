"""What the TFDS builders of multi-object scenes share: configurations, features, splits.

Contract: a builder gives a bank of objects for each split; scenes are synthesized from it with a fixed seed for each
split and written in that order, so a data set is the same wherever it is built.  The test split's objects are never
in the training split.  What is on disk are the splits train and test; `asr_tf.data.loading` cuts the validation split
from the end of train.

References:
    Xu et al., NeurIPS 2019, arXiv:1906.03923, section 5: 20,000 images a count, 1,000 for test; counts {1, 3},
    {1, 4}, {2, 4}; and exactly 3 objects at 0.6 of their size with bounding boxes apart.
"""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from asr_tf.data.originals import Bank
from asr_tf.data.synthesis import SceneSettings, synthesize_in_chunks

__all__ = ["MultiObjectBuilder", "SceneConfig", "paper_configs"]

TRAIN_SCENES_A_COUNT = 20_000
TEST_SCENES = 1_000
_SEEDS = {"train": 1906, "test": 3923}

_CITATION = """@inproceedings{xu2019multi,
  title={Multi-object Generation with Amortized Structural Regularization},
  author={Xu, Kun and Li, Chongxuan and Zhu, Jun and Zhang, Bo},
  booktitle={Advances in Neural Information Processing Systems},
  year={2019}
}"""


@dataclasses.dataclass(kw_only=True)
class SceneConfig(tfds.core.BuilderConfig):
    """A TFDS configuration that says how scenes look.

    Attributes:
        settings: counts, canvas, placement.
        train_scenes_a_count: training scenes for each count.
    """

    settings: SceneSettings
    train_scenes_a_count: int = TRAIN_SCENES_A_COUNT


def paper_configs(canvas_size: tuple[int, int]) -> list[SceneConfig]:
    """Returns count13, count14, count24 and overlap3, the data sets of the paper, on a canvas (H, W) in pixels."""
    configs = [
        SceneConfig(
            name=f"count{few}{many}",
            description=f"{few} or {many} objects, ink apart.",
            settings=SceneSettings(canvas_size=canvas_size, counts=(few, many)),
        )
        for few, many in ((1, 3), (1, 4), (2, 4))
    ]
    overlap3 = SceneConfig(
        name="overlap3",
        description="3 objects at 0.6 of their size, square crops apart.",
        settings=SceneSettings(
            canvas_size=canvas_size,
            counts=(3,),
            scale_range=(0.6, 0.6),
            placement="boxes",
            gap_px=0,
        ),
    )
    return [*configs, overlap3]


class MultiObjectBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set of scenes; a subclass sets `BUILDER_CONFIGS`, `CLASS_NAMES` and `_bank`.

    Features: `image` uint8 [H, W, C], with C = 3 (RGB) where the settings have colours and C = 1 (grey) elsewhere;
    `count` int64; `boxes` and `ink_boxes` float32 [count, 4], the square crop and the tight rectangle of each object,
    [ymin, xmin, ymax, xmax] in canvas fractions; `labels` int64 [count]; `masks` uint8 [count, H, W], each object's
    share of each pixel times 255.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "Images, counts, boxes, ink boxes and labels.",
        "1.1.0": "The same scenes, with the mask of each object.",
    }
    CLASS_NAMES: tuple[str, ...] = ()

    @abc.abstractmethod
    def _bank(self, split: str, manual_dir: pathlib.Path) -> Bank:
        """Returns the objects of a split ('train' or 'test')."""

    def _info(self) -> tfds.core.DatasetInfo:
        settings = self.builder_config.settings
        features = tfds.features.FeaturesDict(
            {
                # Plain bytes: written and read several times faster than PNG, at 2.5 KB a grey image.
                "image": tfds.features.Tensor(
                    shape=(*settings.canvas_size, settings.channels),
                    dtype=np.uint8,
                    encoding=tfds.features.Encoding.BYTES,
                ),
                "count": tfds.features.Scalar(dtype=np.int64),
                "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
                "ink_boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
                "labels": tfds.features.Sequence(
                    tfds.features.ClassLabel(names=list(self.CLASS_NAMES))
                ),
                # Nearly all zeros: compressed, they take 0.1 KB (sprites) to 0.4 KB (digits) a scene instead of 5.
                "masks": tfds.features.Tensor(
                    shape=(None, *settings.canvas_size), dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB
                ),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__} {self.builder_config.description}",
            features=features,
            citation=_CITATION,
            # Scenes come in random order; keeping it makes building faster and the order a function of the seed.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        # `manual_dir` raises where there is no such folder, though a bank may need none.
        manual_dir = pathlib.Path(dl_manager._manual_dir)
        # Both banks first: a file that is missing is told before anything is made.
        banks = {split: self._bank(split, manual_dir) for split in _SEEDS}
        return {split: self._generate_examples(split, bank) for split, bank in banks.items()}

    def _generate_examples(self, split: str, bank: Bank) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        num_scenes = {
            "train": config.train_scenes_a_count * len(config.settings.counts),
            "test": TEST_SCENES,
        }[split]
        chunks = synthesize_in_chunks(bank.images, config.settings, num_scenes, _SEEDS[split], labels=bank.labels)
        scenes = ({key: array[i] for key, array in vars(chunk).items()} for chunk in chunks for i in range(len(chunk)))
        for index, scene in enumerate(scenes):
            count = int(scene["counts"])
            example = {"image": scene["images"], "count": count, "masks": scene["masks"][:count]}
            for key in ("boxes", "ink_boxes"):
                example[key] = [tfds.features.BBox(*box) for box in scene[key][:count].tolist()]
            example["labels"] = scene["labels"][:count].tolist()
            yield index, example
