from __future__ import annotations

import os

import pytest
import testing_storage
from asr_tf.export.batch import matching


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what `names` are written into it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"some")


def names(*patterns):
    return [file.path for file in matching.match(patterns)]


@pytest.mark.parametrize(
    "name", ["scan[1].npy", "a\\b.npy", "a*.npy", "?.npy", "[!a].npy", "two\nlines.npy", "ä ö.npy", "**.npy", "[.npy"]
)
def test_any_file_can_be_named(folder, name):
    write(folder, name, "scan1.npy", "ab.npy", "x.npy", f"in/{name}", "in/x.npy")
    for path in (name, f"./{name}", f"in/{name}", f"{folder}/{name}", f"in//{name}"):
        assert names(path) == [path.replace("//", "/")]


@pytest.mark.parametrize("name", ["run[1]", "a\\b", "*", "two\nlines"])
def test_any_folder_can_be_named(folder, name):
    write(folder, f"{name}/1.png", f"{name}/2.png", f"{name}/x.npy", "run1/3.png", "ab/3.png")
    assert names(f"{name}/*.png") == [f"{name}/1.png", f"{name}/2.png"]
    assert names(f"{folder}/{name}/[12].png") == [f"{folder}/{name}/1.png", f"{folder}/{name}/2.png"]


def test_patterns(folder):
    write(folder, "b.png", "a.png", "C.PNG", "in/a.png", "in/deep/er/a.png", "in/scan1.npy", "a\\b.png")
    (folder / "folder.png").mkdir()
    assert names("*.png") == ["a.png", "a\\b.png", "b.png"]  # the example of the flag's own message
    assert names("?.png") == ["a.png", "b.png"]
    assert names("[!a].png") == ["b.png"]
    assert names("*/*.png") == ["in/a.png"]
    assert names("in/scan[1].npy") == ["in/scan1.npy"]
    assert names("in/**/*.png") == names("in/**.png") == ["in/a.png", "in/deep/er/a.png"]
    assert names("in/**") == ["in/a.png", "in/scan1.npy", "in/deep/er/a.png"]
    assert names(f"{folder}/../{folder.name}/b.p*") == [f"{folder}/../{folder.name}/b.png"]
    assert names("*.jpg", "nowhere/*.png", "in", "in/", "folder.png") == []


def test_a_file_comes_once(folder):
    write(folder, "a.png", "b.png")
    assert names("a.png", "*.png", "./a.png", f"{folder}/b.png") == ["a.png", "b.png"]


def test_what_systems_leave_fits_no_pattern(folder):
    write(folder, "a.png", "._a.png", ".DS_Store", "Thumbs.db", "_SUCCESS", ".git/x.png", "__MACOSX/a.png", "in/b.png")
    assert names("*") == ["a.png"]
    assert names("*/*.png", "**/*.png") == ["in/b.png", "a.png"]
    assert names("._a.png") == names(".*.png") == ["._a.png"]
    assert names(".git/*.png") == [".git/x.png"]


def test_names_that_are_no_text(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb"):
        pass
    (file,) = names("*.png")
    assert os.fsencode(file) == b"caf\xe9.png"
    assert names(file) == [file]


def test_values_of_the_flag(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    write(folder, "a|b.png", "~")
    assert matching.split_patterns(["a|b.png", "c.png|d|*.npy", "~/x|~", "a|c"]) == [
        *("a|b.png", "c.png", "d", "*.npy", "/home/me/x", "~", "a", "c")
    ]


def test_what_is_found_and_left_out_is_told(folder, capsys):
    write(folder, *(f"{index}.png" for index in range(3)), *(f"{index}.jpg" for index in range(9)))
    write(folder, "x.bmp", "a.txt", "9.PNG")
    write(folder, "more/a.npy", "more/b.jpg", "more/._b.jpg", "other/c.jpg")
    matching.survey(["*.png", "more/*.npy"])
    assert capsys.readouterr().err == (
        "Found 4 files; left out beside them: 10 *.jpg, 1 *.PNG, 1 *.bmp (PNG, NPY and TFRecord files are read).\n"
    )
    matching.survey(["more/*"])  # what was asked for is no more left out: it is refused with a reason
    matching.survey(["0.png", "more/a.npy"])  # and who names files doesn't mean those beside them
    assert capsys.readouterr().err == "Found 2 files.\nFound 2 files.\n"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*.jpg", r"--input '\*\.jpg' matches no file\."),
        ("in", r"--input 'in' is a folder; give the files in it, as in/\*\.png\."),
        ("in/", r"--input 'in/' is a folder; give the files in it, as in/\*\.png\."),
        ("in/a.png/*.png", r"--input 'in/a\.png/\*\.png' cannot be read: .*Not a directory"),
        ("nowhere://x", r"--input 'nowhere://x' cannot be read: "),
        ("bucket://b/*.png", r"--input 'bucket://b/\*\.png' matches no file\."),
    ],
)
def test_inputs_that_mean_nothing(folder, pattern, reason):
    write(folder, "in/a.png")
    with pytest.raises(ValueError, match=f"^{reason}"):
        matching.survey([pattern])


def test_urls(monkeypatch):
    files = dict.fromkeys(["a[1].png", "a1.png", "in/b.png", "in/.b.png", "__MACOSX/b.png"], b"some")
    monkeypatch.setattr(testing_storage.Bucket, "files", {f"bucket://b/{name}": data for name, data in files.items()})
    assert list(matching.match(["bucket://b/a[1].png"])) == [matching.File("bucket://b/a[1].png", 4)]
    assert names("bucket://b/a[12].png") == ["bucket://b/a1.png"]
    assert names("bucket://b/**/*.png") == ["bucket://b/in/b.png"]
    assert names("bucket://b/in/.*") == ["bucket://b/in/.b.png"]
    assert matching.is_local("1://x") and not matching.is_local("gs://x")
    matching.survey(["bucket://b/*.png"])
