"""PNG images of every kind in files and in TFRecords: the verdict is that of a folder to train on.

`tests/data/test_image_folder.py` asks a folder the same.
"""

from __future__ import annotations

import numpy as np
import pytest
import testing_png
import testing_saved_model as hand_made
from asr_tf.export.batch import reading
from asr_tf.export.batch.chunks import Chunk


@pytest.mark.parametrize("kind", ["png", "tfrecord"])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_images_of_every_kind(tmp_path, kind, channels):
    cases = dict(testing_png.CASES)
    if kind == "tfrecord":
        del cases["raw pixels"]  # which a record may hold
        hand_made.write_records(tmp_path / "all.tfrecord", [case.data for case in cases.values()])
        files = [tmp_path / "all.tfrecord"]
        names = {(str(files[0]), row): name for row, name in enumerate(cases)}
    else:
        files = [tmp_path / f"{row}.png" for row in range(len(cases))]
        for file, case in zip(files, cases.values(), strict=True):
            file.write_bytes(case.data)
        names = {(str(file), 0): name for file, name in zip(files, cases, strict=True)}
    parts = list(reading.read_chunks(map(str, files), (*testing_png.SIZE, channels)))
    found = {}
    for chunk in (part for part in parts if isinstance(part, Chunk)):
        assert chunk.images.dtype == np.uint8
        for file, record, image in zip(chunk.files, chunk.records, chunk.images, strict=True):
            found[names[file, record]] = image
    refusals = [part for part in parts if not isinstance(part, Chunk)]
    refused = {names[refusal.file, refusal.record]: refusal.reason for refusal in refusals}
    assert len(refusals) == len(refused)
    wanted = {name: case.pixels for name, case in cases.items() if case.pixels is not None}
    fitting = {name for name, pixels in wanted.items() if (pixels.ndim == 3) == (channels == 3)}
    assert set(found) == fitting
    assert set(refused) == set(cases) - fitting
    for name in fitting:
        np.testing.assert_array_equal(found[name], wanted[name].reshape(*testing_png.SIZE, channels), err_msg=name)
    for name in set(wanted) - fitting:
        assert " channel" in refused[name]
    assert not any("{{" in reason or "\n" in reason for reason in refused.values())
