"""The limit of open files is raised as far as it may be, and never lowered."""

from __future__ import annotations

import subprocess
import sys

import pytest
import source_tree

resource = pytest.importorskip("resource")

CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from asr_tf.export.server import file_limit
print(file_limit.raise_to(int(sys.argv[1])), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "found"),
    [
        (100, 1000, 500, "500 500 1000"),
        (100, 1000, 5000, "1000 1000 1000"),
        (1000, 1000, 5000, "1000 1000 1000"),
        (500, 1000, 200, "200 500 1000"),
    ],
)
def test_as_far_as_it_goes(soft, hard, wanted, found):
    code = CODE.format(soft=soft, hard=hard)
    done = subprocess.run(
        [sys.executable, "-c", code, str(wanted)], cwd=source_tree.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
