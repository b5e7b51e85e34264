from __future__ import annotations

import errno
import os

import pytest

from asr_tf.runs import files


def test_a_file_is_on_disk_before_it_has_its_name_and_the_name_too(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(files.os, "fsync", lambda number: calls.append(os.readlink(f"/proc/self/fd/{number}")))
    files.write_whole(tmp_path / "a.json", "new")
    assert calls == [str(tmp_path / "a.json.part"), str(tmp_path)]
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_full_disk_names_the_file_leaves_it_as_it_was_and_keeps_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'"):
        files.write_whole(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_an_error_of_who_writes_stays_what_it_is(tmp_path):
    with pytest.raises(KeyError), files.replacing(tmp_path / "a.npz") as file:
        file.write(b"half")
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("code", "matters"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_only_file_systems_that_cannot_sync_are_forgiven(tmp_path, monkeypatch, code, matters):
    def fails(_):
        raise OSError(code, "fsync")

    monkeypatch.setattr(files.os, "fsync", fails)
    if matters:
        with pytest.raises(OSError, match="fsync"):
            files.sync(tmp_path)
    else:
        files.sync(tmp_path)
