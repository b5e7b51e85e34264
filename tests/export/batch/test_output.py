from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import source_tree
import testing_storage
from asr_tf.export.batch import output
from asr_tf.export.batch.output import plain_path, writing

RESULTS = {"_refused-0.jsonl": "why", "objects-0.parquet": "rows", "objects-1.parquet": "more"}


def fill(work, results=RESULTS):
    os.makedirs(work, exist_ok=True)
    for name, text in results.items():
        with open(f"{work}/{name}", "w") as file:
            file.write(text)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(folder):
    with writing(str(folder)) as work:
        fill(work)


@pytest.mark.parametrize("name", ["out", "new/out", "out[1]", "a\\b", "*?", "{a,b}", "two\nlines", "caf\udce9", "50%"])
def test_results_are_published_as_a_whole(tmp_path, name):
    folder = tmp_path / name
    with writing(str(folder)) as work:
        fill(work)
        assert [path.name for path in folder.iterdir()] == ["_unfinished"]
        assert work.isprintable() and not set("*?[]{}\\") & set(work)
    assert content(folder) == RESULTS | {"_SUCCESS": ""}
    with pytest.raises(ValueError, match=r"holds results already \(_SUCCESS\); give another folder") as error:
        write(folder)
    assert "\n" not in str(error.value)
    assert content(folder) == RESULTS | {"_SUCCESS": ""}


@pytest.mark.parametrize("name", ["objects-00000-of-00001.parquet", "refused-00000-of-00001.jsonl", "_refused-0.jsonl"])
def test_results_of_earlier_versions_are_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("rows")
    with pytest.raises(ValueError, match=rf"holds results already \({name}\); give another folder"):
        write(tmp_path)
    assert content(tmp_path) == {name: "rows"}


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_job_that_fails_leaves_nothing(tmp_path, error):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    for folder in (tmp_path / "new", tmp_path / "there"):
        with pytest.raises(type(error)), writing(str(folder)) as work:
            fill(work)
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert content(tmp_path / "there") == {"notes.txt": "mine"}


def test_a_disk_that_is_full_at_the_last_moment_costs_no_space(tmp_path, monkeypatch):
    rename = output.FileSystems.rename

    def half(sources, targets):
        if "objects-1" in targets[0]:
            raise OSError("full")
        rename(sources, targets)

    monkeypatch.setattr(output.FileSystems, "rename", half)
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What a job does before it is killed, at the time when a call of `os` is made that begins with these arguments.
KILLED_AT = {
    "while it works": ("work", ""),
    "before what was refused is published": ("rename", "_refused-0"),
    "between the outputs": ("rename", "objects-0"),
    "in the midst of the rows": ("rename", "objects-1"),
    "before its mark of success": ("create", "_SUCCESS"),
    "when all is done but tidying up": ("delete", "_unfinished"),
}
SCRIPT = """
import os, signal, sys
from asr_tf.export.batch import output
folder, call, name, results = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
if call != "work":
    whole = getattr(output.FileSystems, call)
    def until(*arguments):
        text = str(arguments[-1])
        if name in text.split("/")[-1]:
            kill()
        return whole(*arguments)
    setattr(output.FileSystems, call, until)
with output.writing(folder) as work:
    os.makedirs(work + "/beam-temp-objects-abc", exist_ok=True)
    for file, text in results.items():
        open(f"{work}/{file}", "w").write(text)
    if call == "work":
        kill()
"""


@pytest.mark.parametrize("moment", KILLED_AT)
def test_after_a_kill_the_next_job_begins_again(tmp_path, moment, capsys):
    folder = tmp_path / "out[1]"
    arguments = [str(folder), *KILLED_AT[moment], repr(dict.fromkeys((*RESULTS, "objects-7.parquet"), "old"))]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], cwd=source_tree.ROOT, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    if moment == "when all is done but tidying up":
        with pytest.raises(ValueError, match="holds results already"):
            write(folder)
        assert set(content(folder)) == {*RESULTS, "objects-7.parquet", "_SUCCESS"}
        return
    assert not (folder / "_SUCCESS").exists()
    rows = list(folder.glob("objects-*"))
    assert len(rows) == {"in the midst of the rows": 1, "before its mark of success": 3}.get(moment, 0)
    assert (folder / "_refused-0.jsonl").exists() or not rows  # what was refused comes first
    write(folder)
    assert content(folder) == RESULTS | {"_SUCCESS": ""}
    told = capsys.readouterr().err
    assert told == f"{folder}: removing what a job has left that didn't come to its end.\n"


def test_what_beam_has_left_is_swept(tmp_path):
    for name in ("beam-temp-objects-1a", "beam-temp-refused-1b", "beam-temp-objects-coco-1c", "beam-temp-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("rows")
    (tmp_path / "beam-temp-objects-empty").mkdir()
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*RESULTS, "_SUCCESS", "beam-temp-mine"])


def test_two_jobs_at_once(tmp_path):
    (tmp_path / "_unfinished").mkdir()  # an earlier one's
    with writing(str(tmp_path)) as work:
        fill(work)
        with pytest.raises(ValueError, match="another asr_batch_infer writes in '.*': wait for its end"):
            write(tmp_path)
    assert content(tmp_path) == RESULTS | {"_SUCCESS": ""}


def test_outputs_that_are_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, reason in {
        "file": "is no folder but a file; give another name",
        "link": "is no folder but a file; give another name",
        "file/out": "cannot be made: Not a directory",
    }.items():
        with pytest.raises(ValueError, match=f"--output '.*/{name}' {reason}"):
            write(tmp_path / name)
    with pytest.raises(ValueError, match=r"must not hold any of \*\?\[\]\{\}\\, which stand for patterns in URLs"):
        write("bucket://b/out[1]")
    assert (tmp_path / "file").read_text() == "mine"


def test_storage_behind_urls(monkeypatch):
    files = {"bucket://b/other": b"x"}
    monkeypatch.setattr(testing_storage.Bucket, "files", files)

    def names():
        return {path.removeprefix("bucket://b/out/") for path in files} - {"bucket://b/other"}

    class Killed(BaseException):
        pass

    with monkeypatch.context() as killed:
        killed.setattr(output, "_discard", lambda folder: None)  # as where nothing more is run
        with pytest.raises(Killed), writing("bucket://b/out") as work:
            files[f"{work}/objects-0.parquet"] = b"part"
            files["bucket://b/out/objects-0.parquet"] = b"old"
            files["bucket://b/out/beam-temp-objects-1a/part"] = b"old"
            raise Killed
    assert len(names()) == 4
    with writing("bucket://b/out") as work:
        assert names() == {"_unfinished/job"}
        for name, text in RESULTS.items():
            files[f"{work}/{name}"] = text.encode()
    assert names() == {*RESULTS, "_SUCCESS"}
    with pytest.raises(ValueError, match="holds results already"), writing("bucket://b/out"):
        pass


def test_a_plain_path_stays_as_it_is(tmp_path):
    for path in (str(tmp_path / "a b-ä.x"), "relative", "gs://bucket/a[1]"):
        with plain_path(path) as plain:
            assert plain == path
    (tmp_path / "a[1]").mkdir()
    with plain_path(str(tmp_path / "a[1]")) as plain:
        assert os.path.samefile(plain, tmp_path / "a[1]")
    assert not os.path.lexists(plain)
    assert (tmp_path / "a[1]").is_dir()
