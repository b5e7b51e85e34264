"""Which version is served as folders come, go, and turn out broken."""

from __future__ import annotations

import logging

import pytest
import tensorflow as tf
import testing_server
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.repository import Poller, VersionRepository, VersionState


class Version:
    """Stands for a loaded version."""

    def __init__(self, number):
        self.number = number
        self.in_use = 0

    def acquire(self):
        self.in_use += 1

    def release(self):
        self.in_use -= 1


def _load(folder, number):
    text = (folder / "saved_model.pb").read_text()
    if text != "good":
        raise OSError(f"bad graph:\n{text}")
    return Version(number)


def _write(export_dir, number, text="good"):
    folder = export_dir / str(number)
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_text(text)


@pytest.fixture
def make(tmp_path):
    def make(**options):
        return VersionRepository(tmp_path, options.pop("load", _load), **options)

    return make


@pytest.fixture
def said():
    """Records of the server's log, by a handler of its own: what other tests did to the root logger doesn't matter."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    log = logging.getLogger("asr_serve")
    log.addHandler(handler)
    yield records
    log.removeHandler(handler)


def test_the_newest_number_is_served(tmp_path, make):
    for number in (9, 10, 2):
        _write(tmp_path, number)
    for name in (".11", "12.tmp", "x", "13"):
        (tmp_path / name).mkdir()
    (tmp_path / "14").write_text("a file")
    changes = []
    repository = make(on_change=changes.append)
    assert repository.numbers() == []
    repository.poll()
    assert repository.numbers() == [10]
    repository.poll()
    assert changes == [[10]]
    with repository.lease(None, "Latest(asr)") as version:
        assert version.number == 10
    missing = repository.lease(9, "Specific(asr, 9)")
    with pytest.raises(RequestError, match=r"Servable not found for request: Specific\(asr, 9\)") as caught, missing:
        pass
    assert caught.value.status == 404


def test_several_versions(tmp_path, make):
    for number in (1, 2, 3):
        _write(tmp_path, number)
    _write(tmp_path, 4, "broken")
    repository = make(num_versions=2)
    repository.poll()
    assert repository.numbers() == [3, 2]
    with repository.lease(2, "") as version:
        assert version.number == 2


def test_a_new_version_takes_over_and_the_old_one_stays_for_its_requests(tmp_path, make):
    _write(tmp_path, 1)
    repository = make()
    repository.poll()
    with repository.lease(None, "") as old:
        _write(tmp_path, 2)
        repository.poll()
        assert repository.numbers() == [2]
        assert repository.states() == {2: VersionState("AVAILABLE"), 1: VersionState("UNLOADING")}
        assert old.in_use == 1
        with repository.lease(None, "") as new:
            assert new.number == 2
    repository.poll()
    assert repository.states()[1] == VersionState("END")


def test_a_broken_newest_is_passed_over_and_said(tmp_path, make, said):
    _write(tmp_path, 1)
    repository = make()
    repository.poll()
    _write(tmp_path, 2, "broken")
    repository.poll()
    repository.poll()
    assert repository.numbers() == [1]
    assert repository.states()[2] == VersionState("END", "INTERNAL", "OSError: bad graph: broken")
    errors = [record.getMessage() for record in said if record.levelno == logging.ERROR]
    assert errors == ["version 2 can't be served: OSError: bad graph: broken; version 1 stays"]


def test_what_tensorflow_says_is_told_in_plain_words(tmp_path, make, said):
    def load(folder, number):
        said_of_nodes = "{{function_node __wrapped__RestoreV2}} No file x [Op:RestoreV2] name: "
        raise tf.errors.NotFoundError(None, None, said_of_nodes)

    _write(tmp_path, 1)
    repository = make(load=load)
    repository.poll()
    assert repository.states()[1] == VersionState("END", "INTERNAL", "NotFoundError: No file x")
    assert [record.getMessage() for record in said] == [
        "version 1 can't be served: NotFoundError: No file x; older versions are tried"
    ]


def test_a_broken_version_is_tried_again_when_its_files_change(tmp_path, make):
    tries = []

    def load(folder, number):
        tries.append(number)
        return _load(folder, number)

    _write(tmp_path, 1)
    _write(tmp_path, 2, "half")
    repository = make(load=load)
    repository.poll()
    repository.poll()
    assert (repository.numbers(), tries) == ([1], [2, 1])
    _write(tmp_path, 2)
    repository.poll()
    assert repository.numbers() == [2]
    assert repository.states()[2] == VersionState("AVAILABLE")


def test_goes_back_when_the_newest_is_taken_away(tmp_path, make):
    _write(tmp_path, 1)
    _write(tmp_path, 2)
    repository = make()
    repository.poll()
    (tmp_path / "2").rename(tmp_path / "taken")
    repository.poll()
    assert repository.numbers() == [1]


def test_keeps_what_it_has_when_the_folder_is_empty_or_gone(tmp_path, make):
    _write(tmp_path, 1)
    repository = make()
    repository.poll()
    (tmp_path / "1").rename(tmp_path / "taken")
    repository.poll()
    assert repository.numbers() == [1]
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    repository.poll()
    assert repository.numbers() == [1]


def test_the_poller_goes_on_after_a_fault(tmp_path, make, monkeypatch):
    repository = make()
    polls = []

    def poll():
        polls.append(1)
        if len(polls) == 1:
            raise RuntimeError("once")

    monkeypatch.setattr(repository, "poll", poll)
    poller = Poller(repository, 0.001)
    testing_server.wait_until(lambda: len(polls) > 2)
    poller.close()
