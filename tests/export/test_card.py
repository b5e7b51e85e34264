"""A version whose files aren't those of its card isn't served; one without a card is."""

from __future__ import annotations

import json

import pytest
import testing_server
from asr_tf.export.server.card import check_card
from asr_tf.export.server.predictor import Predictor, Settings
from testing_served import random_images, write_version

from asr_tf.export import artifact


def write_card(folder):
    """Adds the card to a version, as asr_export does."""
    (folder / artifact.CARD).write_text(json.dumps({"files": artifact.checksums(folder), "signatures": {}}))


@pytest.fixture
def folder(tmp_path):
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        path = tmp_path / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    write_card(tmp_path / "1")
    return tmp_path / "1"


def test_what_is_as_exported_passes(folder):
    check_card(folder)
    for name in (".DS_Store", "variables/._variables.index", "notes.txt", "assets.extra/tf_serving_warmup_requests"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"put there by somebody")
    check_card(folder)
    (folder / artifact.CARD).unlink()
    (folder / "saved_model.pb").write_bytes(b"of another program")
    check_card(folder)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


FAULTS = [
    (lambda folder: _flip(folder / "saved_model.pb"), "saved_model.pb isn't the file of model_card.json"),
    (lambda folder: _flip(folder / "variables/variables.index"), "variables/variables.index isn't the file"),
    (lambda folder: (folder / "variables/variables.index").write_bytes(b""), "its size or SHA-256 differs"),
    (lambda folder: (folder / "variables/variables.index").unlink(), "variables/variables.index is missing"),
    (lambda folder: (folder / "saved_model.cpb").write_bytes(b"x"), "saved_model.cpb isn't in model_card.json"),
    (lambda folder: (folder / artifact.CARD).write_bytes(b"{"), "model_card.json is damaged: JSONDecodeError"),
    (lambda folder: (folder / artifact.CARD).write_bytes(b"[]"), "model_card.json is damaged: TypeError"),
    (lambda folder: (folder / artifact.CARD).write_bytes(b"{}"), "model_card.json is damaged: KeyError: 'files'"),
    (lambda folder: (folder / artifact.CARD).write_bytes(b'{"files": 3}'), "model_card.json is damaged: Attribute"),
    (lambda folder: (folder / artifact.CARD).write_bytes(b"\xff"), "model_card.json is damaged: UnicodeDecodeError"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_what_is_not_as_exported(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        check_card(folder)


def test_a_flipped_bit_keeps_the_version_before_it(tmp_path):
    """It may well load, and give wrong numbers."""
    write_card(write_version(tmp_path, 1))
    newer = write_version(tmp_path, 2, factor=0.25)
    write_card(newer)
    data = newer / "variables" / "variables.data-00000-of-00001"
    good = data.read_bytes()
    data.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with testing_server.serving(tmp_path) as server:
        assert server.predictor.repository.numbers() == [1]
        state = server.predictor.repository.states()[2]
        assert state.error_message.startswith("ValueError: variables/variables.data-00000-of-00001 isn't the file of")
        images = random_images(1).tolist()
        assert server.predict({"instances": images})[0] == 200
        data.write_bytes(good)  # the whole file, at last
        testing_server.wait_until(lambda: server.predictor.repository.numbers() == [2])


def test_no_version_as_exported_is_one_line(tmp_path):
    folder = write_version(tmp_path, 1)
    write_card(folder)
    _flip(folder / "saved_model.pb")
    with pytest.raises(ValueError, match=r"can be served; version 1: ValueError: saved_model.pb isn't the file of"):
        Predictor(Settings(tmp_path))
