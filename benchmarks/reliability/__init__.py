"""What happens where things go wrong: kills, full disks, flipped bits, hostile clients, a hundred thousand requests.

    python -m benchmarks.reliability [--output=FILE] [--quick] [--parts=kills,disk,...] [--seed=0]

Each part is a module with a function `measure`, which does something many times over with the commands as users run
them, and says what was expected and what happened (`outcome.Check`).  `page` writes docs/RELIABILITY.md of it.
"""
