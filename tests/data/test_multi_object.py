import json

import numpy as np
import pytest
import testing_data

from asr_tf.data import DataSource, load_scenes, loading, multi_object, synthesis
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
    for splits, num in ((("train", "validation"), 30), (("test",), 12)):
        bank = sprite_bank(splits[0])
        seed = {"train": 1906, "test": 3923}[splits[0]]
        made = synthesis.synthesize(bank.images, settings, num, seed, labels=bank.labels)
        for _ in range(2):
            loaded = [load_scenes("multi_sprites/count14", split, tmp_path, with_masks=True) for split in splits]
            for key, array in vars(made).items():
                got = np.concatenate([getattr(scenes, key) for scenes in loaded])
                np.testing.assert_array_equal(got, array, err_msg=key)
                assert got.dtype == array.dtype
    (test,) = loaded
    assert test.boxes.shape == (12, 4, 4)
    assert test.masks.shape == (12, 4, 50, 50)
    assert np.bincount(test.counts).tolist() == [0, 6, 0, 0, 6]


def test_validation_is_the_end_of_what_is_for_training(tmp_path):
    """Nothing is in both, nothing is left out, and the order is that of the data set on disk."""
    bank = sprite_bank("train")
    made = synthesis.synthesize(bank.images, MultiSprites.builder_configs["count13"].settings, 30, 1906)
    for wanted, held_out in ((1, 1), (2, 2), (3, 3), (1000, 3)):
        train, validation = (
            load_scenes("multi_sprites/count13", split, tmp_path, num_validation=wanted)
            for split in ("train", "validation")
        )
        assert (len(train), len(validation)) == (30 - held_out, held_out)
        np.testing.assert_array_equal(train.images, made.images[: 30 - held_out])
        np.testing.assert_array_equal(validation.images, made.images[30 - held_out :])
        assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in validation.images}
    with pytest.raises(ValueError, match="data.num_validation must be a whole number, 1 or more, got 0"):
        load_scenes("multi_sprites/count13", "train", tmp_path, num_validation=0)


def test_a_source_prepares_once_and_says_so_once(tmp_path, capsys):
    source = DataSource(name="multi_sprites/count13", num_train=20)
    (tmp_path / "originals").mkdir()
    load_scenes("multi_sprites/count13", "test", tmp_path)
    capsys.readouterr()
    folders = tmp_path, tmp_path / "originals"
    scenes = {split: source.load(split, *folders) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in scenes.items()} == {"train": 20, "validation": 3, "test": 12}
    assert capsys.readouterr().err.count("Using multi_sprites/count13 as it was prepared") == 1
    assert scenes["validation"].masks is None
    masks = source.load("validation", *folders, with_masks=True).masks
    np.testing.assert_array_equal(masks.sum(axis=1), scenes["validation"].images[..., 0])


def test_masks_that_are_not_asked_for_are_not_decoded(tmp_path, monkeypatch):
    import tensorflow as tf

    whole = load_scenes("multi_sprites/count13", "test", tmp_path, with_masks=True)
    np.testing.assert_array_equal(whole.masks.sum(axis=1), whole.images[..., 0])
    monkeypatch.setattr(tf.io, "decode_compressed", lambda *_, **__: pytest.fail("decoded"))
    for split in ("train", "validation", "test"):
        assert load_scenes("multi_sprites/count13", split, tmp_path).masks is None


def test_scenes_without_an_object_have_masks_too(tmp_path, monkeypatch):
    settings = synthesis.SceneSettings(canvas_size=(50, 60), counts=(0, 2))
    config = multi_object.SceneConfig(name="few", description="", settings=settings, train_scenes_a_count=5)
    monkeypatch.setattr(MultiSprites, "builder_configs", {"few": config})  # first: it follows from the other one
    monkeypatch.setattr(MultiSprites, "BUILDER_CONFIGS", [config])
    scenes = load_scenes("multi_sprites/few", "test", tmp_path, with_masks=True)
    assert scenes.masks.shape == (12, 2, 50, 60)
    np.testing.assert_array_equal(scenes.masks.any(axis=(2, 3)).sum(axis=1), scenes.counts)


def test_a_data_set_of_an_older_version_is_told_and_left_as_it_is(tmp_path, monkeypatch, capsys):
    import tensorflow_datasets as tfds

    with monkeypatch.context() as older:
        older.setattr(MultiSprites, "VERSION", tfds.core.Version("1.0.0"))
        load_scenes("multi_sprites/count13", "test", tmp_path)
    folder = tmp_path / "multi_sprites" / "count13"
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert capsys.readouterr().err == f"Preparing multi_sprites/count13 in {folder}/1.0.0 (once).\n"
    load_scenes("multi_sprites/count13", "test", tmp_path)
    assert capsys.readouterr().err == (
        f"Preparing multi_sprites/count13 in {folder}/1.1.0 (once); what is beside it isn't read any more: 1.0.0.\n"
    )
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert list(MultiSprites.RELEASE_NOTES) == ["1.0.0", str(MultiSprites.VERSION)]


def test_a_data_set_is_synthesized_chunk_by_chunk(tmp_path, monkeypatch):
    """What is written is never in memory as a whole: a chunk is made after the one before is written."""
    monkeypatch.setattr(synthesis, "_CHUNK_SCENES", 4)
    builder = MultiSprites(data_dir=tmp_path, config="count13")
    made = []
    make = synthesis._make_chunk
    monkeypatch.setattr(synthesis, "_make_chunk", lambda *arguments: made.append(1) or make(*arguments))
    examples = builder._generate_examples("train", sprite_bank("train"))
    chunks_made = []
    for _ in range(9):
        next(examples)
        chunks_made.append(len(made))
    assert chunks_made == [1, 1, 1, 1, 2, 2, 2, 2, 3]


@pytest.mark.parametrize("config", ["count13", "count24", "overlap3"])
def test_every_configuration_builds(tmp_path, config):
    scenes = load_scenes(f"multi_sprites/{config}", "train", tmp_path)
    counts = {"count13": [1, 3], "count24": [2, 4], "overlap3": [3]}[config]
    assert sorted(set(scenes.counts)) == counts
    assert len(scenes) == {1: 14, 2: 27}[len(counts)]
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
    assert len(load_scenes("multi_sprites/count13", "train", tmp_path)) == 27


def _cut(file, number):
    file.write_bytes(file.read_bytes()[:number])


def _in_place_of(file):
    file.unlink()
    file.mkdir()


def _forget_split(file):
    info = json.loads(file.read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] != "test"]
    file.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: _cut(next(folder.glob("*-test.*")), -10), r"3/1\.\d\.0 is damaged \(truncated record at \d+"),
        (lambda folder: _cut(next(folder.glob("*-test.*")), 5), "is damaged .*expected to contain 12 .* only 0"),
        (lambda folder: next(folder.glob("*-test.*")).unlink(), "is damaged .*No such file or directory"),
        (lambda folder: (folder / "dataset_info.json").unlink(), "is no whole data set, it has no dataset_info.json"),
        (lambda folder: _cut(folder / "dataset_info.json", 50), "a dataset_info.json in .*/count13 is damaged"),
        (lambda folder: (folder / "dataset_info.json").write_text("{}"), "a dataset_info.json in .* is damaged"),
        (lambda folder: (folder / "dataset_info.json").write_bytes(b"\xe9"), "a dataset_info.json in .* is damaged"),
        (lambda folder: _in_place_of(folder / "dataset_info.json"), "a dataset_info.json in .*/count13 is damaged"),
        (lambda folder: _forget_split(folder / "dataset_info.json"), r"0 is damaged \(no split test in dataset_info"),
    ],
)
def test_a_damaged_data_set_says_where_it_is_and_what_helps(tmp_path, damage, message):
    load_scenes("multi_sprites/count13", "test", tmp_path)
    (info,) = tmp_path.rglob("dataset_info.json")
    damage(info.parent)
    with pytest.raises(ValueError, match=f"{message}.*: move that folder away, and .* prepared anew") as error:
        load_scenes("multi_sprites/count13", "test", tmp_path)
    assert "\n" not in str(error.value)
    assert "{{" not in str(error.value)
    info.parent.rename(tmp_path / "away")
    assert len(load_scenes("multi_sprites/count13", "test", tmp_path)) == 12


@pytest.mark.parametrize("name", ["file", "file/deeper"])
def test_a_folder_that_cannot_be_written_names_the_flag(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"file.* cannot be written: Not a directory; give another folder \(--data_dir\)"):
        load_scenes("multi_sprites/count13", "test", tmp_path / name)


@pytest.mark.parametrize("name", ["run[1]", "a\\b", "two\nlines", "a?"])
def test_folders_of_any_characters(tmp_path, name):
    for _ in range(2):
        assert len(load_scenes("multi_sprites/count13", "test", tmp_path / name)) == 12


@pytest.mark.parametrize("name", ["a*", "caf\udce9"])
def test_folders_that_tfds_cannot_have(tmp_path, name):
    with pytest.raises(ValueError, match=r"must be UTF-8 and without \*, for TFDS: give another --data_dir"):
        load_scenes("multi_sprites/count13", "test", tmp_path / name)
    assert not (tmp_path / name).exists()


def test_what_a_killed_preparation_has_left_is_swept(tmp_path, monkeypatch):
    load_scenes("multi_sprites/count13", "test", tmp_path)
    (info,) = tmp_path.rglob("dataset_info.json")
    whole, leftover = info.parent, info.parent.with_name(f"incomplete.ABC123_{info.parent.name}")
    whole.rename(leftover)
    assert len(load_scenes("multi_sprites/count13", "test", tmp_path)) == 12
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]


@pytest.mark.parametrize("builder", loading._BUILDERS)
def test_real_originals_build(tmp_path, builder):
    folder = testing_data.originals_dir(builder)
    scenes = load_scenes(f"{builder}/count13", "test", tmp_path, folder, with_masks=True)
    np.testing.assert_array_equal(scenes.masks.sum(axis=1), scenes.images[..., 0])
    sides = (scenes.boxes[..., 2] - scenes.boxes[..., 0])[scenes.labels >= 0] * scenes.canvas_size[0]
    if builder == "multi_mnist":
        assert sides.round().max() == 20
    assert sides.round().max() <= 30
