from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import source_tree
import testing_export
import testing_saved_model as hand_made
from pycocotools.coco import COCO

from asr_tf.export import batch_infer_main


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    hand_made.write(folder / "1")
    return folder


def infer(monkeypatch, *arguments):
    """What the command does with arguments, in this process: the exit's status."""
    monkeypatch.setattr(sys, "argv", ["asr_batch_infer", *map(str, arguments)])
    for name in batch_infer_main._FLAGS:
        batch_infer_main._FLAGS[name].unparse()
    with pytest.raises(SystemExit) as end:
        batch_infer_main.run()
    return end.value.code


def test_the_command_tells_what_it_wrote(export_dir, tmp_path, monkeypatch, capfd):
    np.save(tmp_path / "a.npy", hand_made.pictures(3))
    np.save(tmp_path / "b.npy", np.zeros((7, 7), np.uint8))
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = [f"--export_dir={export_dir}", f"--input={tmp_path}/a.npy|~/b*"]
    output = tmp_path / "out"
    flags_of_beam = ["--", "--direct_num_workers=1"]
    assert not infer(monkeypatch, *wanted, f"--output={output}/", *flags_of_beam)
    told = capfd.readouterr()
    assert told.out.splitlines() == [
        "3 images inferred; 1 image or file was refused.",
        f"Rows: {output}/objects-*.parquet",
        f"Refused, with reasons: {output}/_refused-*.jsonl",
    ]
    assert "Found 2 files.\n" in told.err
    assert len(list(output.glob("objects-*.parquet"))) == 1

    assert infer(monkeypatch, *wanted, "--output=~/strict", "--strict") == 1
    assert "error: --strict: 1 image or file was refused" in capfd.readouterr().err
    assert len(list((tmp_path / "strict").glob("objects-*.parquet"))) == 1


def test_paths_are_no_patterns_where_they_are_there(export_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "one|two[1].npy", hand_made.pictures(3))
    arguments = [f"--export_dir={export_dir}", "--input=one|two[1].npy", "--output=out[1]"]
    assert not infer(monkeypatch, *arguments)
    told = capfd.readouterr()
    assert told.out.splitlines() == [
        "3 images inferred; 0 images or files were refused.",
        "Rows: out[1]/objects-*.parquet",
    ]
    assert "Found 1 file.\n" in told.err
    assert sorted(path.name for path in (tmp_path / "out[1]").iterdir()) == [
        *("_SUCCESS", "objects-00000-of-00001.parquet")
    ]


@pytest.mark.parametrize("name", ["format", "output_format"])
def test_coco_is_one_file(tiny_export, tmp_path, monkeypatch, capfd, name):
    np.save(tmp_path / "a.npy", testing_export.images(20))
    arguments = [f"--export_dir={tiny_export}", f"--input={tmp_path}/a.npy", f"--output={tmp_path}/out"]
    assert not infer(monkeypatch, *arguments, f"--{name}=coco")
    assert capfd.readouterr().out.splitlines() == [
        "20 images inferred; 0 images or files were refused.",
        f"COCO: {tmp_path}/out/objects-coco.json",
    ]
    assert len(COCO(str(tmp_path / "out" / "objects-coco.json")).imgs) == 20


def test_rows_of_other_formats(export_dir, tmp_path, monkeypatch, capfd):
    np.save(tmp_path / "a.npy", hand_made.pictures(3))
    arguments = [f"--export_dir={export_dir}", f"--input={tmp_path}/a.npy", f"--output={tmp_path}/out"]
    assert not infer(monkeypatch, *arguments, "--format=tfrecord")
    assert f"Rows: {tmp_path}/out/objects-*.tfrecord" in capfd.readouterr().out
    assert len(list((tmp_path / "out").glob("objects-*.tfrecord"))) == 1


def test_without_pycocotools_it_says_what_to_install(tiny_export, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    arguments = [f"--export_dir={tiny_export}", "--input=x", f"--output={tmp_path}/out"]
    assert infer(monkeypatch, *arguments, "--format=coco") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("asr_batch_infer: error: the format coco needs pycocotools")
    assert line.endswith("pip install 'asr_tf[labelled]'")
    assert not (tmp_path / "out").exists()


def test_nothing_that_could_be_used_is_an_error(export_dir, tmp_path, monkeypatch, capfd):
    (tmp_path / "a.npy").write_bytes(b"junk")
    arguments = [f"--export_dir={export_dir}", f"--input={tmp_path}/a.npy", f"--output={tmp_path}/out"]
    assert infer(monkeypatch, *arguments) == 1
    assert "error: no image of --input could be used" in capfd.readouterr().err
    assert len(list((tmp_path / "out").glob("_refused-*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--input=x", "--output=y"], 2, "--export_dir is needed"),
        (["--export_dir=x", "--output=y"], 2, "--input is needed"),
        (["--export_dir=x", "--input=y"], 2, "--output is needed"),
        (["--export_dir=x", "--input=y", "--output=z", "--strikt"], 2, "unknown flag --strikt; did you mean --strict?"),
        (
            ["--export_dir=x", "--input=y", "--output=z", "--format=coco", "--output_format=coco"],
            2,
            "--format and --output_format are the same: give --format alone",
        ),
        (["--export_dir=x", "--input=y", "--output=z", "--format=voc"], 2, "should be one of <parquet|tfrecord|coco>"),
        (["--export_dir=/none", "--input=y", "--output=z"], 1, "holds no exported version"),
        (["--export_dir={export}", "--input=*.png", "--output=z"], 1, "--input '*.png' matches no file"),
        (["--export_dir={export}", "--input={export}", "--output=z"], 1, "is a folder; give the files in it"),
        (["--export_dir={export}", "--input={file}", "--output={file}"], 1, "is no folder but a file; give another"),
        (["--export_dir=x", "--input=y", "--output=z", "--", "--no_such_flag=1"], 1, "--no_such_flag is unknown"),
    ],
)
def test_wrong_flags_are_told_on_one_line(arguments, status, message, monkeypatch, capfd, export_dir, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = export_dir / "1" / "saved_model.pb"
    arguments = [argument.format(export=export_dir, file=file) for argument in arguments]
    assert infer(monkeypatch, *arguments) == status
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("asr_batch_infer: error: ")
    assert message in line


def test_without_beam_it_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['apache_beam'] = None\n"
        "from asr_tf.export import batch_infer_main\n"
        "sys.argv = ['asr_batch_infer', '--export_dir=x', '--input=y', '--output=z']\n"
        "batch_infer_main.run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source_tree.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "pip install 'asr_tf[beam]'" in done.stderr
    assert "Traceback" not in done.stderr
