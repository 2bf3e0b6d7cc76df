"""The command line: `modalign train`, `evaluate`, `generate`, `data check`, `plugins`, `doctor`, `quickstart`."""

from modalign.cli.app import main

__all__ = ["main"]
