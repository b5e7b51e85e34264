"""Versions come whole or not at all, and stay as they are."""

import os
import stat

import pytest

from asr_tf.export import artifact


def add(folder, version=None, text="content"):
    with artifact.new_version(folder, version) as (part, number):
        (part / "inner").mkdir()
        (part / "inner" / "file").write_text(text)
    return number


def test_versions_count_up_from_the_newest(tmp_path):
    folder = tmp_path / "new" / "export"
    assert artifact.versions(folder) == []
    assert [add(folder), add(folder, 7), add(folder)] == [1, 7, 8]
    for name in ("notes", "012", "0", "-3", "9x"):
        (folder / name).mkdir()
    (folder / "11").write_text("a file is no version")
    assert artifact.versions(folder) == [1, 7, 8]
    assert add(folder, 3) == 3 and artifact.versions(folder) == [1, 3, 7, 8]
    assert artifact.version_folder(folder) == folder / "8"
    assert artifact.version_folder(folder, 3) == folder / "3"


def test_a_version_that_is_there_is_never_touched(tmp_path):
    add(tmp_path, 2, "first")
    with pytest.raises(artifact.ExportError, match=r"version 2 is in .* already.*or none for the next one \(3\)"):
        add(tmp_path, 2, "second")
    (tmp_path / "5").mkdir()
    with pytest.raises(artifact.ExportError, match="already"):
        add(tmp_path, 5)
    assert (tmp_path / "2" / "inner" / "file").read_text() == "first"
    assert not any((tmp_path / "5").iterdir())


def test_two_at_once_do_not_mix(tmp_path):
    with pytest.raises(artifact.ExportError, match="from elsewhere"), artifact.new_version(tmp_path) as (part, number):
        (part / "file").write_text("slow")
        assert number == add(tmp_path, text="fast") == 1
    assert (tmp_path / "1" / "inner" / "file").read_text() == "fast"
    assert os.listdir(tmp_path) == ["1"]


def test_an_error_in_the_middle_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), artifact.new_version(tmp_path) as (part, _):
        (part / "half").write_text("half")
        assert artifact.versions(tmp_path) == []
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_what_a_killed_export_has_left_goes_at_the_next_one(tmp_path):
    """What another one is writing stays."""
    left = tmp_path / ".exporting-1-killed"
    (left / "inner").mkdir(parents=True)
    (left / "inner" / "file").write_text("half")
    with artifact.new_version(tmp_path) as (part, _):
        assert os.listdir(tmp_path) == [part.name]
        assert add(tmp_path, 2) == 2
        assert sorted(os.listdir(tmp_path)) == [part.name, "2"]
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_others_may_read_what_is_served(tmp_path):
    add(tmp_path)
    beside = tmp_path / "beside"
    beside.mkdir()
    assert stat.S_IMODE((tmp_path / "1").stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_versions_out_of_range(tmp_path, version):
    with pytest.raises(artifact.ExportError, match=f"from 1 to 9223372036854775807, got {version}"):
        add(tmp_path, version)


def test_folders_that_can_not_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(artifact.ExportError, match="can't write in export folder"):
        add(tmp_path / "file" / "export")
    with pytest.raises(artifact.ExportError, match="holds no exported version; asr_export"):
        artifact.version_folder(tmp_path)
    add(tmp_path, 4)
    with pytest.raises(artifact.ExportError, match="holds no version 5; there are: 4"):
        artifact.version_folder(tmp_path, 5)
    (tmp_path / "4" / artifact.CARD).write_text("{}")
    assert artifact.version_folder(tmp_path / "4") == tmp_path / "4"


@pytest.mark.parametrize(("there", "new"), [("savedmodel", "tflite"), ("tflite", "savedmodel")])
def test_formats_do_not_mix(tmp_path, there, new):
    artifact.check_one_format(tmp_path / "missing", new)
    add(tmp_path)  # of neither format
    add(tmp_path, 6)
    (tmp_path / "6" / artifact.MODEL_FILES[there]).write_text("")
    artifact.check_one_format(tmp_path, there)
    message = rf"version 6 in .* is of format {there}, .* {new} an --export_dir of its own\.$"
    with pytest.raises(artifact.ExportError, match=message):
        artifact.check_one_format(tmp_path, new)


def test_checksums_cover_all_but_the_card(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"abc")
    (tmp_path / artifact.CARD).write_text("{}")
    assert artifact.checksums(tmp_path) == {
        "inner/file": {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    }
