"""docs/SECURITY.md states the limits that the server really has."""

from __future__ import annotations

import re

import pytest
import source_tree
from asr_tf.export.server import answer_room, background, bodies, connections, predictor

from asr_tf.export import serve_main
from asr_tf.serving import served_model

PAGE = (source_tree.ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
ROWS = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in PAGE.splitlines() if "|" in line)}
FLAGS = {name: serve_main._FLAGS[name].default for name in serve_main._FLAGS}
LIMITS = connections.ConnectionLimits()
BODY_MIB = FLAGS["max_body_mb"]
TOGETHER_MIB = bodies._BODIES_AT_ONCE * BODY_MIB
READ_S = FLAGS["read_timeout_seconds"]
MOST_ROWS = FLAGS["max_rows"]


@pytest.mark.parametrize(
    ("what", "stated"),
    [
        ("address", [FLAGS["host"], f"port {FLAGS['port']}"]),
        ("connections at once", [f"{FLAGS['max_connections']:,}"]),
        ("request line and headers, and trailers", [f"{LIMITS.head_bytes // 2**10} KiB"]),
        ("time for them", [f"{READ_S / 3:g} s"]),
        ("requests sent ahead of their answers, of a connection", [f"{connections._MOST_AHEAD}"]),
        ("a connection without a request", [f"{FLAGS['idle_seconds']} s after", f"{READ_S / 3:g} s before"]),
        ("a body, unpacked", [f"{BODY_MIB:g} MiB"]),
        ("time for a body", [f"{READ_S:g} s"]),
        (
            "all bodies together",
            [
                f"{bodies._BODIES_AT_ONCE} of the largest: {TOGETHER_MIB:g} MiB",
                f"{TOGETHER_MIB / 8:g} MiB are kept for bodies of {bodies._SMALL * BODY_MIB:g} MiB or less",
            ],
        ),
        ("bodies of one peer", [f"{TOGETHER_MIB / 2:g} MiB", f"bodies of {bodies._SMALL * BODY_MIB:g} MiB or less"]),
        (
            "images or scenes of a request",
            [f"{MOST_ROWS:,}; ", f"{served_model.MOST_SAMPLES:,} scenes, {served_model.MOST_REFINED} images to refine"],
        ),
        (
            "images times particles, or times steps",
            [
                f"{MOST_ROWS * predictor._REPEATS['num_particles']:,}; ",
                f"{MOST_ROWS * predictor._REPEATS['steps']:,}; ",
                f"{served_model.MOST_PARTICLES:,} particles, {served_model.MOST_STEPS:,} steps",
            ],
        ),
        ("examples that wait for a batch", [f"{max(MOST_ROWS, 32 * FLAGS['max_batch_size']):,}"]),
        ("calls of `refine`, `sample` and `log_likelihood`", [f"{background._MOST_WAITING} at once"]),
        ("time of such a call", [f"{FLAGS['call_timeout_seconds']:g} s"]),
        ("answers that aren't taken yet", [f"{predictor._ANSWERS_BYTES // 2**20} MiB of batches"]),
        (
            "a client that takes its answer slowly",
            [
                f"{connections._MOST_STALLS * connections._LOOK_S:g} s in a row",
                f"less than {connections._SLOWEST_BYTES_PER_S // 2**10} KiB/s",
                f"{answer_room._TAKING_S:g} s where others wait",
            ],
        ),
    ],
)
def test_limits(what, stated):
    assert [text for text in stated if text not in ROWS[what][0]] == []


def test_flags_are_the_servers():
    named = re.findall(r"`--(\w+)`", PAGE)
    assert {"max_body_mb", "max_connections", "export_dir"} <= set(named) <= {*FLAGS, "help"}
