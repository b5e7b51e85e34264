import numpy as np
import pytest
import testing_data

from asr_tf.data import load_scenes, loading, multi_object, synthesis
from asr_tf.data.multi_dsprites import MultiDsprites
from asr_tf.data.multi_mnist import MultiMnist
from asr_tf.data.multi_sprites import MultiSprites
from asr_tf.data.sprites import sprite_bank

BUILDERS = (MultiDsprites, MultiMnist, MultiSprites)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few scenes instead of tens of thousands."""
    monkeypatch.setattr(multi_object, "TEST_SCENES", 12)
    for builder in BUILDERS:
        for config in builder.BUILDER_CONFIGS:
            monkeypatch.setattr(config, "train_scenes_a_count", 15)


def _tiny_dsprites(folder):
    """Squares that grow with the orientation, so that each can be told by its ink: 3 shapes, 10 orientations."""
    images = np.zeros((30, 64, 64), np.uint8)
    classes = np.zeros((30, 6), np.int64)
    for k in range(30):
        classes[k, [1, 3]] = k // 10, k % 10
        images[k, 3 : 6 + k % 10, 3:6] = 1
    np.savez(folder / "dsprites_subset.npz", imgs=images, latents_classes=classes)


def test_configurations_are_the_papers():
    assert multi_object.TRAIN_SCENES_A_COUNT == 20_000
    for builder, side in zip(BUILDERS, (64, 50, 50), strict=True):
        configs = {config.name: config.settings for config in builder.BUILDER_CONFIGS}
        assert {name: config.counts for name, config in configs.items()} == {
            "count13": (1, 3),
            "count14": (1, 4),
            "count24": (2, 4),
            "overlap3": (3,),
        }
        assert all(settings.canvas_size == (side, side) for settings in configs.values())
        assert configs["count13"].placement == "pixels"
        assert configs["count13"].keeps_objects_as_they_are
        assert configs["overlap3"].placement == "boxes"
        assert configs["overlap3"].scale_range == (0.6, 0.6)


def test_two_runs_may_prepare_a_data_set_at_once(tmp_path, monkeypatch):
    """The one that ends later uses what the other has put there."""
    generate = MultiSprites._split_generators
    loaded = []

    def overtaken(self, *args, **options):
        monkeypatch.setattr(MultiSprites, "_split_generators", generate)
        loaded.append(load_scenes("multi_sprites/count13", "test", tmp_path))
        return generate(self, *args, **options)

    monkeypatch.setattr(MultiSprites, "_split_generators", overtaken)
    np.testing.assert_array_equal(load_scenes("multi_sprites/count13", "test", tmp_path).images, loaded[0].images)


def test_what_was_synthesized_comes_back(tmp_path):
    """A written data set, read again, is what synthesis gives for the split's bank and seed; twice."""
    settings = MultiSprites.builder_configs["count14"].settings
    for split, num in (("train", 30), ("test", 12)):
        bank = sprite_bank(split)
        made = synthesis.synthesize(
            bank.images, settings, num, {"train": 1906, "test": 3923}[split], labels=bank.labels
        )
        for _ in range(2):
            loaded = load_scenes("multi_sprites/count14", split, tmp_path)
            for key, array in vars(made).items():
                got = getattr(loaded, key)
                np.testing.assert_array_equal(got, array, err_msg=key)
                assert got.dtype == array.dtype
    assert loaded.boxes.shape == (12, 4, 4)
    assert np.bincount(loaded.counts).tolist() == [0, 6, 0, 0, 6]


@pytest.mark.parametrize("config", ["count13", "count24", "overlap3"])
def test_every_configuration_builds(tmp_path, config):
    scenes = load_scenes(f"multi_sprites/{config}", "train", tmp_path)
    counts = {"count13": [1, 3], "count24": [2, 4], "overlap3": [3]}[config]
    assert sorted(set(scenes.counts)) == counts
    assert len(scenes) == 15 * len(counts)
    sides = (scenes.boxes[..., 2] - scenes.boxes[..., 0])[scenes.labels >= 0] * 50
    low, high = (8, 14) if config == "overlap3" else (14, 22)
    assert low <= sides.min().round() <= sides.max().round() <= high


def test_digits_of_each_split_come_from_its_own_file(tmp_path):
    testing_data.write_tiny_mnist(tmp_path)
    for split, grey in (("train", 200), ("test", 100)):
        scenes = load_scenes("multi_mnist/count13", split, tmp_path / "tfds", tmp_path)
        assert set(np.unique(scenes.images)) == {0, grey}
        # A digit's bar is as long as its label, plus one, and three pixels high.
        assert (scenes.images > 0).sum() == 3 * (scenes.labels[scenes.labels >= 0] + 1).sum()


def test_digits_from_a_prepared_mnist(tmp_path):
    """TFDS's own mnist, where it is prepared, serves too: here a tiny one with the same features."""
    import tensorflow_datasets as tfds

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "mnist"
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            image = tfds.features.Image(shape=(28, 28, 1))
            label = tfds.features.ClassLabel(num_classes=10)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in ("train", "test")}

        def _generate_examples(self, split):
            for label in range(10):
                image = np.zeros((28, 28, 1), np.uint8)
                image[9:11, : label + 3] = {"train": 30, "test": 60}[split]
                yield label, {"image": image, "label": label}

    Mnist(data_dir=tmp_path).download_and_prepare()
    for split, grey in (("train", 30), ("test", 60)):
        scenes = load_scenes("multi_mnist/count13", split, tmp_path)
        assert set(np.unique(scenes.images)) == {0, grey}
        assert (scenes.images > 0).sum() == 2 * (scenes.labels[scenes.labels >= 0] + 3).sum()


def test_orientations_of_the_test_split_are_held_out(tmp_path):
    _tiny_dsprites(tmp_path)
    heights = {}
    for split in ("train", "test"):
        scenes = load_scenes("multi_dsprites/count13", split, tmp_path / "tfds", tmp_path)
        assert scenes.canvas_size == (64, 64)
        sides = ((scenes.ink_boxes[..., 2] - scenes.ink_boxes[..., 0]) * 64).round().astype(int)
        heights[split] = set(sides[scenes.labels >= 0] - 3)  # height 3 + orientation
    assert heights["test"] == {2, 7}
    assert heights["train"] <= set(range(10)) - {2, 7}


def test_missing_originals_say_what_to_give(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="give manual_dir .*four original idx files.* or prepare TFDS") as error:
        load_scenes("multi_mnist/count13", "train", tmp_path / "tfds", empty)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="give manual_dir"):
        load_scenes("multi_mnist/count13", "train", tmp_path / "tfds")
    with pytest.raises(ValueError, match="doesn't hold the dSprites file"):
        load_scenes("multi_dsprites/count13", "train", tmp_path / "tfds", empty)
    with pytest.raises(ValueError, match="nowhere' is not a folder"):
        load_scenes("multi_mnist/count13", "train", tmp_path / "tfds", tmp_path / "nowhere")


def test_half_a_data_set_is_never_left(tmp_path, monkeypatch):
    def fails_in_the_test_split(self, split, bank, whole=multi_object.MultiObjectBuilder._generate_examples):
        yield from whole(self, split, bank)
        if split == "test":
            raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(multi_object.MultiObjectBuilder, "_generate_examples", fails_in_the_test_split)
        with pytest.raises(OSError, match="disk full"):
            load_scenes("multi_sprites/count13", "train", tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
    assert len(load_scenes("multi_sprites/count13", "train", tmp_path)) == 30


@pytest.mark.parametrize("builder", loading._BUILDERS)
def test_real_originals_build(tmp_path, builder):
    folders = {
        "multi_mnist": testing_data.mnist_dir,
        "multi_dsprites": lambda: testing_data.dsprites_file().parent,
        "multi_sprites": lambda: None,
    }
    scenes = load_scenes(f"{builder}/count13", "test", tmp_path, folders[builder]())
    sides = (scenes.boxes[..., 2] - scenes.boxes[..., 0])[scenes.labels >= 0] * scenes.canvas_size[0]
    if builder == "multi_mnist":
        assert sides.round().max() == 20
    assert sides.round().max() <= 30
