"""What is installed: every module and gin file is in the wheel, and works from it, away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import source_tree

ROOT = source_tree.ROOT
# Folders of the checkout that the wheel carries under another name.
MAPPED = {"gin_configs": "asr_tf/gin_configs", "export": "asr_tf/export"}

COMMANDS = {
    "train": "train_main",
    "evaluate": "evaluate_main",
    "sample": "sample_main",
    "score": "score_main",
    "export": "export.export_main",
    "check_export": "export.check_main",
    "batch_infer": "export.batch_infer_main",
    "serve": "export.serve_main",
}


def _run(arguments, folder, **environment):
    done = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy to build from, so that nothing is left in the checkout and nothing stale there gets in."""
    copy = tmp_path_factory.mktemp("sources") / "asr_tf"
    anywhere = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "node_modules")
    at_the_top = shutil.ignore_patterns("build", "dist", "runs", "bazel-*")

    def left_out(folder, names):
        return anywhere(folder, names) | (at_the_top(folder, names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, copy, ignore=left_out)
    return copy


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    """The wheel, built without the network."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    _run([*pip, "--wheel-dir", str(out), "."], sources)
    (path,) = out.glob("asr_tf-*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _wanted():
    """Path in the wheel of each file that must be in it."""
    wanted = set()
    for folder, target in {"asr_tf": "asr_tf", **MAPPED}.items():
        for path in (ROOT / folder).rglob("*"):
            only_python = folder == "export"  # clients and configurations of servers stay in the checkout
            if path.is_file() and "__pycache__" not in path.parts and (path.suffix == ".py" or not only_python):
                wanted.add(f"{target}/{path.relative_to(ROOT / folder).as_posix()}")
    return wanted


def test_wheel_holds_exactly_the_package(unpacked):
    there = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    there = {name for name in there if ".dist-info/" not in name}
    assert there == _wanted()
    assert "asr_tf/py.typed" in there
    assert sum(name.endswith(".gin") for name in there) >= 3


def test_wheel_tells_its_name_license_and_commands(unpacked):
    (info,) = unpacked.glob("asr_tf-*.dist-info")
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    version = {}
    exec((ROOT / "asr_tf" / "version.py").read_text(encoding="utf-8"), version)
    assert f"Version: {version['__version__']}\n" in metadata
    (pythons,) = re.findall("^Requires-Python: (.*)$", metadata, re.MULTILINE)
    assert set(pythons.split(",")) == {">=3.10", "<3.14"}
    for extra in ("data", "export", "beam", "labelled", "serve", "test", "lint", "dev"):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert [path.read_text() for path in info.rglob("LICENSE")] == [(ROOT / "LICENSE").read_text()]
    commands = (info / "entry_points.txt").read_text().split("\n")
    for name, module in COMMANDS.items():
        assert f"asr_{name} = asr_tf.{module}:run" in commands
        assert callable(_function(module, "run"))


def _function(module, name):
    imported = __import__(f"asr_tf.{module}", fromlist=[name])
    return getattr(imported, name)


def test_requirements_are_bounded(unpacked):
    """Every requirement of ours has a lower bound, and an upper one unless it is a build tool."""
    (info,) = unpacked.glob("asr_tf-*.dist-info")
    lines = (info / "METADATA").read_text(encoding="utf-8").splitlines()
    required = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Requires-Dist:")]
    assert len(required) > 10
    for line in required:
        assert ">=" in line, line
        assert "==" not in line.split(";")[0], f"exact pin: {line}"
        if not line.startswith(("setuptools", "wheel")):
            assert "<" in line, line


def test_gin_files_are_found_by_name_from_any_folder(unpacked, tmp_path):
    code = (
        "import asr_tf, importlib.resources as r; from asr_tf.runs import configuration as c;"
        f"assert asr_tf.__file__.startswith({str(unpacked)!r}), asr_tf.__file__;"
        "print(*c.available_files());"
        "[c.find_file(name).read_text() for name in c.available_files()];"
        "assert r.files('asr_tf.gin_configs').joinpath('quickstart.gin').is_file()"
    )
    names = _run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(unpacked)).split()
    folder = ROOT / "gin_configs"
    assert names == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gin"))
    assert {"quickstart.gin", "models/asr.gin", "models/air.gin"} <= set(names)


def test_the_export_is_that_of_the_installation(unpacked, tmp_path):
    """From the wheel away from the checkout, and from the checkout, where the folder stands beside the package."""
    code = "import asr_tf.export.artifact as a, asr_tf.export.check_artifact as c; print(a.__file__, c.__file__)"
    for root, folder in ((unpacked, unpacked / "asr_tf" / "export"), (ROOT, ROOT / "export")):
        files = _run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(root)).split()
        assert files == [str(folder / "artifact.py"), str(folder / "check_artifact.py")]


def test_wheel_from_the_source_archive_is_the_same(sources, unpacked, tmp_path):
    """The sdist carries all that a wheel is built from, the tests and the papers that go with them."""
    code = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
    _run([sys.executable, "-c", code, str(tmp_path)], sources)
    (archive,) = tmp_path.glob("asr_tf-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    inverse = {target: folder for folder, target in MAPPED.items()}
    for name in _wanted():
        for target, folder in inverse.items():
            if name.startswith(target + "/"):
                name = folder + name[len(target) :]
        assert name in names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "BUILD"} <= names
    assert {"docs/results/cells.jsonl", "docs/results/rejection.json", "docs/performance/speed.json"} <= names
    assert {p.relative_to(ROOT).as_posix() for p in source_tree.python_files(source_tree.TESTS)} <= names
    assert not Path(sources / "asr_tf" / "gin_configs").exists()
