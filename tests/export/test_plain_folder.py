from __future__ import annotations

import os
import pathlib

import pytest

from asr_tf.export import plain_folder


def test_links_of_killed_processes_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_folder.tempfile, "tempdir", str(tmp_path))
    target = tmp_path / "a[1]"
    (target / "results").mkdir(parents=True)
    for name in ("asr_tf-link-old", "asr_tf-link-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to(target)
    os.utime(tmp_path / "asr_tf-link-old", (0, 0))
    with plain_folder.plain_folder(str(target)) as used:
        os.utime(os.path.dirname(used), (0, 0))
        with plain_folder.plain_folder(str(target)) as plain:
            assert plain != used
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a[1]", "asr_tf-link-new", used.split("/")[-2]}
    assert (target / "results").is_dir()


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?", "a\\b", "{a,b}", "two\nlines"])
def test_a_name_that_would_be_a_pattern_is_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    with plain_folder.plain_folder(tmp_path / name) as plain:
        assert plain_folder.is_plain(plain) and plain.isprintable()
        assert os.path.samefile(plain, tmp_path / name)
    assert not os.path.lexists(plain)
    assert (tmp_path / name).is_dir()


def test_a_plain_name_stays_as_it_is():
    for path in ("/tmp/a b-ä.x", "relative"):
        with plain_folder.plain_folder(pathlib.Path(path)) as plain:
            assert plain == path
