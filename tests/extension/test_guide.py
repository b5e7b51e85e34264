"""The guide shows the extensions as they are, and its commands and code work from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import source_tree

HERE = Path(__file__).resolve().parent
TEXT = (source_tree.ROOT / "docs" / "change_the_model.md").read_text(encoding="utf-8")
FILES = {path.name: path.read_text(encoding="utf-8") for path in HERE.iterdir() if path.suffix in (".py", ".gin")}
EXTENSIONS = {name: text for name, text in FILES.items() if not name.startswith("test_")}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def is_part_of(block: str, text: str) -> bool:
    """Whether a file has these lines, one below the other, with any indentation in common."""
    return any(textwrap.indent(block, " " * depth) in text for depth in (0, 4, 8))


def test_python_is_taken_from_the_extensions_or_is_run():
    assert blocks("python")[0] == EXTENSIONS["conv_decoder.py"]
    shown = {name for block in blocks("python") for name, text in EXTENSIONS.items() if is_part_of(block, text)}
    assert shown == {name for name in EXTENSIONS if name.endswith(".py")}
    assert len(own_blocks()) == 1
    fenced = re.findall(r"^```(\w*)$", TEXT, re.MULTILINE)
    assert set(fenced) == {"python", "gin", ""}
    assert len(fenced) == 2 * len(blocks("python") + blocks("gin"))


def own_blocks() -> list[str]:
    """What no extension holds: uses of one."""
    return [block for block in blocks("python") if not any(is_part_of(block, text) for text in EXTENSIONS.values())]


def test_gin_is_that_of_the_extension():
    (block,) = blocks("gin")
    heading, _, rest = block.partition("\n")
    assert heading == "# my_model.gin"
    assert rest == EXTENSIONS["conv_decoder.gin"]


def test_the_steps_work_in_an_empty_folder(tmp_path):
    """The files as they are shown, then the model by gin, then the uses from Python."""
    (tmp_path / "conv_decoder.py").write_text(blocks("python")[0])
    (tmp_path / "my_model.gin").write_text(blocks("gin")[0])
    files, binding = re.search(r"asr_train --workdir=W (.*) \\\n +--gin_bindings=\"(.*)\"", TEXT).groups()
    names = re.findall(r"--gin_files=(\S+)", files)
    by_gin = (
        "from asr_tf.runs import configuration\n"
        "from asr_tf.models import build_model\n"
        f"configuration.parse({names!r}, [{binding!r}])\n"
        "model = build_model(canvas_size=(50, 50), channels=1, seed=0)\n"
        "assert (type(model.decoder).__name__, model.decoder.filters) == ('ConvDecoder', 32)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", by_gin + "\n".join(own_blocks())],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(source_tree.ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.keras").is_file()
