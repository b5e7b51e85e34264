from __future__ import annotations

import errno
import functools
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import source_tree
import testing_labelled
from testing_labelled import contents, write

from asr_tf.labelled import shards
from asr_tf.labelled.coco_folder import CocoFolder
from asr_tf.labelled.formats import FORMATS
from asr_tf.labelled.tfrecord_folder import TFRecordFolder
from asr_tf.labelled.yolo_folder import YoloFolder

NUMBER = 40


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Five shards of two chunks."""
    monkeypatch.setattr(shards, "SCENES_OF_A_SHARD", 8)
    monkeypatch.setattr(shards, "_LARGEST_CHUNK", 4)


def interrupted_after(chunks):
    """`draw` that ends with an interruption behind some chunks."""
    numbers = itertools.count()

    def draw(start, number):
        if next(numbers) == chunks:
            raise KeyboardInterrupt
        return testing_labelled.draw(start, number)

    return draw


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_bytes_whether_interrupted_or_not(name, tmp_path):
    kind = FORMATS[name]
    tally = write(kind, tmp_path / "once", NUMBER)
    assert write(kind, tmp_path / "again", NUMBER) == tally
    wanted = contents(tmp_path / "once")
    assert contents(tmp_path / "again") == wanted
    for chunks in (0, 1, 3, 3, 1):  # in the first shard, on a border, inside another
        with pytest.raises(KeyboardInterrupt):
            write(kind, tmp_path / "parts", NUMBER, interrupted_after(chunks))
        assert not json.loads((tmp_path / "parts" / "sampling.json").read_text())["complete"]
    assert write(kind, tmp_path / "parts", NUMBER) == tally
    assert contents(tmp_path / "parts") == wanted


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_bytes_after_an_end_before_any_renaming(name, tmp_path, monkeypatch):
    """Each file and folder gets its name by a renaming, and a shard may consist of several."""
    kind = FORMATS[name]
    write(kind, tmp_path / "once", 12)
    own = {"rename": pathlib.Path.rename, "replace": pathlib.Path.replace}
    for steps in range(100):
        numbers = itertools.count()

        def ends(path, target, how, numbers=numbers, steps=steps):
            if next(numbers) == steps:
                raise KeyboardInterrupt
            return own[how](path, target)

        folder = tmp_path / f"after-{steps}"
        with monkeypatch.context() as patched:
            for how in own:
                patched.setattr(pathlib.Path, how, functools.partialmethod(ends, how=how))
            try:
                write(kind, folder, 12)
            except KeyboardInterrupt:
                pass
            else:
                break
        write(kind, folder, 12)
        assert contents(folder) == contents(tmp_path / "once"), f"after {steps} renamings"
    assert steps >= 6, "two records, and two shards of a part and a tally each"


def test_what_is_whole_is_not_drawn_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(YoloFolder, tmp_path, NUMBER, interrupted_after(5))
    drawn = []

    def draw(start, number):
        drawn.append(start)
        return testing_labelled.draw(start, number)

    tally = write(YoloFolder, tmp_path, NUMBER, draw)
    assert drawn == list(range(16, NUMBER, 4))
    drawn.clear()
    assert write(YoloFolder, tmp_path, NUMBER, draw) == tally
    assert drawn == []


def test_tally_of_all_scenes(tmp_path):
    tally = write(CocoFolder, tmp_path, NUMBER)
    count = testing_labelled.drawn(0, NUMBER)["count"]
    assert tally.scenes == NUMBER
    assert tally.scenes_with == np.bincount(count, minlength=4).tolist()
    assert tally.objects == sum(map(len, testing_labelled.labels(NUMBER)))
    assert tally.left_out == count.sum() - tally.objects > 0
    record = json.loads((tmp_path / "sampling.json").read_text())
    assert record == {
        "complete": True,
        "settings": testing_labelled.SETTINGS,
        "scenes": NUMBER,
        "scenes_with": tally.scenes_with,
        "objects": tally.objects,
        "left_out": tally.left_out,
    }


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"seed": "1"}, "seed is 0 there and 1 now"),
        ({"seed": "0", "num_objects": "2"}, "num_objects is not set there and 2 now"),
    ],
)
def test_scenes_of_other_settings_are_left_as_they_are(tmp_path, whole, settings, difference):
    if whole:
        write(YoloFolder, tmp_path, NUMBER)
    else:
        with pytest.raises(KeyboardInterrupt):
            write(YoloFolder, tmp_path, NUMBER, interrupted_after(5))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"holds scenes of other settings: {difference}; .*nothing was changed"):
        write(YoloFolder, tmp_path, NUMBER, settings=settings)
    assert contents(tmp_path) == before


def test_other_files_are_left_as_they_are(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"holds other files \(images\); give a new or empty folder"):
        write(CocoFolder, tmp_path, NUMBER)
    assert contents(tmp_path) == {"images/mine.png": b"mine"}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"complete": true, "settings": {}}'])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "sampling.json").write_text(text)
    with pytest.raises(ValueError, match="sampling.json is damaged .*give another folder"):
        write(CocoFolder, tmp_path, NUMBER)
    assert contents(tmp_path) == {"sampling.json": text.encode()}


def test_one_writer_at_a_time(tmp_path):
    def draw(start, number):
        with pytest.raises(ValueError, match="another asr_sample writes in .*: wait for its end"):
            write(YoloFolder, tmp_path, NUMBER)
        return testing_labelled.draw(start, number)

    write(YoloFolder, tmp_path, 4, draw)


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_a_full_disk_costs_nothing_that_is_whole(name, tmp_path, monkeypatch):
    kind = FORMATS[name]
    write(kind, tmp_path / "once", NUMBER)
    numbers = itertools.count()
    own = pathlib.Path.write_bytes

    def write_bytes(path, data):
        if next(numbers) == 21:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return own(path, data)

    with monkeypatch.context() as full:
        full.setattr(pathlib.Path, "write_bytes", write_bytes)
        with pytest.raises(OSError, match="can't write in .*: No space left on device; .* the same command goes on"):
            write(kind, tmp_path / "parts", NUMBER)
    assert len(list((tmp_path / "parts" / ".shards").glob("tally-*"))) == 2
    write(kind, tmp_path / "parts", NUMBER)
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


def test_a_full_disk_below_tensorflow(tmp_path, monkeypatch):
    own = TFRecordFolder.examples

    def examples(self, chunk):
        yield from own(self, chunk)
        if chunk.first_id > 20:
            raise OSError("scenes.tfrecord; No space left on device")

    with monkeypatch.context() as full:
        full.setattr(TFRecordFolder, "examples", examples)
        with pytest.raises(OSError, match="can't write in .*No space left on device"):
            write(TFRecordFolder, tmp_path / "parts", NUMBER)
    write(TFRecordFolder, tmp_path / "parts", NUMBER)
    write(TFRecordFolder, tmp_path / "once", NUMBER)
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


def test_chunks_fit_the_memory_and_a_shard(monkeypatch):
    monkeypatch.undo()
    assert shards.chunk_size((50, 50, 1), 4) == 256
    assert shards.chunk_size((64, 64, 3), 4) == 256
    assert shards.chunk_size((256, 256, 3), 4) == 32
    assert shards.chunk_size((4000, 4000, 3), 9) == 1
    for side in range(1, 3000, 7):
        size = shards.chunk_size((side, side, 3), 4)
        assert shards.SCENES_OF_A_SHARD % size == 0
        assert size == 1 or size * side * side * 7 <= 1 << 24


_IN_ANOTHER_PROCESS = """
import pathlib, sys
import testing_labelled
from asr_tf.labelled.formats import FORMATS

for name, kind in FORMATS.items():
    testing_labelled.write(kind, pathlib.Path(sys.argv[1]) / name, 12)
"""


def run_python(code, *arguments):
    """What a new Python prints that runs some code with these tests' helpers."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=source_tree.ROOT,
        env={"PYTHONPATH": f"{source_tree.ROOT}:{source_tree.TESTS}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_bytes_in_every_process(tmp_path, monkeypatch):
    """Serialized messages have an order of their own in each process unless they are told not to."""
    monkeypatch.undo()
    run_python(_IN_ANOTHER_PROCESS, tmp_path / "there")
    for name, kind in FORMATS.items():
        write(kind, tmp_path / "here" / name, 12)
        assert contents(tmp_path / "here" / name) == contents(tmp_path / "there" / name), name


_MEASURED = """
import pathlib, resource, sys
import numpy as np
import testing_labelled
from asr_tf.labelled import scenes
from asr_tf.labelled.coco_folder import CocoFolder

noise = np.random.default_rng(0)
SIZE = (64, 64)
testing_labelled.CANVAS = SIZE

def draw(start, number):
    shares = np.zeros((number, 3, *SIZE, 1), np.float32)
    shares[:, 0, 5:30] = 1.0
    images = noise.random((number, *SIZE, 1), np.float32)
    boxes = np.zeros((number, 3, 4), np.float32)
    return scenes.label({"images": images, "count": np.ones(number, int), "boxes": boxes, "masks": shares}, start + 1)

for number in (1024, 9216):
    testing_labelled.write(CocoFolder, pathlib.Path(sys.argv[1]) / str(number), number, draw)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_scenes(tmp_path):
    """Images alone would take 34 MB more as PNG, and 800 MB with their masks as the model gives them."""
    few, many = map(int, run_python(_MEASURED, tmp_path).split())
    assert many - few < 20_000, f"{few} KB of memory at most for 1,024 scenes, {many} KB for 9,216"
