"""The commands in one place, and how a failure ends: one clear line, an exit code per family of errors."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from modalign import __version__
from modalign.errors import ConfigError, ModalignError

app = App(
    name="modalign",
    help="Align any-to-any models with human preferences.",
    version=__version__,
    help_format="markdown",
)
app.command("modalign.cli.train:train", name="train", help_flags=[], version_flags=[])
app.command("modalign.cli.evaluate:evaluate", name="evaluate")
app.command("modalign.cli.generate:generate", name="generate")
app.command("modalign.cli.quickstart:quickstart", name="quickstart")
app.command("modalign.cli.plugins:plugins", name="plugins")
app.command("modalign.cli.doctor:doctor", name="doctor")

data = App(name="data", help="Look at preference data.")
data.command("modalign.cli.data:check", name="check")
app.command(data)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; ends the process with its exit code."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpcore", "fsspec", "accelerate", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except ModalignError as error:
        sys.exit(_fail(error, debug=debug))
    except CycloptsError as error:
        sys.exit(_fail(ConfigError(str(error), fix="see `modalign --help`"), debug=debug))
    except KeyboardInterrupt:
        print("modalign: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: ModalignError, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"modalign: {error.code}: {printable(str(error))}", file=sys.stderr)
    return error.exit_code


def printable(text: str) -> str:
    """Text without control characters that a terminal would obey: bad input is quoted, never played back."""
    return "".join(one if one in "\n\t" or one.isprintable() else ascii(one)[1:-1] for one in text)
