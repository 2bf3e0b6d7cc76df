"""Reward heads: states to numbers that judge a response."""

from modalign.heads.linear import LinearHead

__all__ = ["LinearHead"]
