"""`python -m modalign_action ROWS FOLDER`: measure the actions of rows, and make what reads and writes them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modalign.errors import ModalignError
from modalign_action.expert import new_expert
from modalign_action.fitting import fit


def main(words: list[str] | None = None) -> int:
    """Write a folder of actions, and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m modalign_action", description=__doc__)
    parser.add_argument("rows", help="rows with actions in their responses")
    parser.add_argument("folder", type=Path, help="written: action.json, and an expert where one is asked for")
    parser.add_argument("--bins", type=int, default=256, help="of each dimension, for discrete actions")
    parser.add_argument("--expert", action="store_true", help="make an untrained expert too, for continuous actions")
    for name, default in (("width", 256), ("depth", 4), ("heads", 4)):
        parser.add_argument(f"--{name}", type=int, default=default, help="of the expert")
    given = parser.parse_args(words)
    try:
        space = fit(given.rows, given.folder, bins=given.bins)
        if given.expert:
            new_expert(space, given.folder, width=given.width, depth=given.depth, heads=given.heads)
    except ModalignError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    rate = "" if space.rate is None else f" at {space.rate:g} Hz"
    print(f"{space.steps} actions of {space.dimensions} dimensions{rate}, in {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
