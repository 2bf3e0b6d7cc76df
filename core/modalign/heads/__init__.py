"""Reward heads: states to numbers that judge a response."""

from modalign.heads.cosine import CosineHead
from modalign.heads.gaussian import GaussianHead
from modalign.heads.labels import LabelHead
from modalign.heads.linear import LinearHead
from modalign.heads.ordinal import OrdinalHead
from modalign.heads.reading import ReadingHead

__all__ = ["CosineHead", "GaussianHead", "LabelHead", "LinearHead", "OrdinalHead", "ReadingHead"]
