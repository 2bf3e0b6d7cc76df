"""Public test doubles, laws, and the plugin contract in executable form."""

from modalign.testing.conformance import check_plugin
from modalign.testing.doubles import ask, say, toy_batch, toy_model, toy_pairs

__all__ = ["ask", "check_plugin", "say", "toy_batch", "toy_model", "toy_pairs"]
