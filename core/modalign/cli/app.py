"""The commands in one place, and how a failure ends: one clear line, an exit code per family of errors."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from modalign import __version__
from modalign.errors import ConfigError, ModalignError

app = App(
    name="modalign",
    help="Align any-to-any models with human preferences.",
    version=__version__,
    help_format="markdown",
    default_parameter=Parameter(negative=(), name_transform=str),
)
# their help stands here so that `modalign --help` imports none of them
app.command(
    "modalign.cli.train:train",
    name="train",
    help="Train a model with an objective, on preference data.",
    help_flags=[],
    version_flags=[],
)
app.command("modalign.cli.evaluate:evaluate", name="evaluate", help="Measure a model with an objective, on other data.")
app.command("modalign.cli.generate:generate", name="generate", help="Answer prompts with a model.")
app.command("modalign.cli.sample:sample", name="sample", help="Make preference pairs of a model's own responses.")
app.command("modalign.cli.quickstart:quickstart", name="quickstart", help="Align a tiny model here, with a report.")
app.command("modalign.cli.report:report", name="report", help="Write a run's curves and settings as one HTML file.")
app.command("modalign.cli.doctor:doctor", name="doctor", help="Try everything, and say how to mend what is broken.")

plugins = App(name="plugins", help="List what is installed and what it registers; or write a new plugin.")
plugins.command("modalign.cli.new:new", name="new", help="Write a new plugin, which passes its tests as it is.")
app.command(plugins)


@plugins.default
def _listed(*, json: bool = False) -> None:
    """List the installed plugins: what each registers, or why it cannot be used and what mends it.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    from modalign.cli.plugins import plugins as listed

    listed(json=json)


data = App(name="data", help="Look at preference data.")
data.command("modalign.cli.data:check", name="check", help="Report every row that cannot be used, and statistics.")
data.command("modalign.cli.data:convert", name="convert", help="Write it as parquet, or as a folder, with its media.")
app.command(data)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; ends the process with its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _quiet_libraries()
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except ModalignError as error:
        sys.exit(_fail(error, debug=debug))
    except CycloptsError as error:
        command = " ".join(["modalign", *words[:1]]) if words[:1] and words[0] in app else "modalign"
        sys.exit(_fail(ConfigError(str(error), fix=f"see `{command} --help`"), debug=debug))
    except BrokenPipeError:  # the reader had enough: `modalign plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except KeyboardInterrupt:
        print("modalign: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def printable(text: str) -> str:
    """Text without control characters that a terminal would obey: bad input is quoted, never played back."""
    return "".join(one if one in "\n\t" or one.isprintable() else ascii(one)[1:-1] for one in text)


def _fail(error: ModalignError, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"modalign: {error.code}: {printable(str(error))}", file=sys.stderr)
    return error.exit_code


def _quiet_libraries() -> None:
    """Our own notes are shown, other libraries' warnings only; their progress bars only where somebody watches."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("modalign").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
