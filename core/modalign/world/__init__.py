"""The oracle world: concepts that every modality can show, and preferences that follow from them."""

from modalign.world.concept import VALUES, Concept, concepts, match, split
from modalign.world.measure import Measure, Rate, Verdict, judge, measure
from modalign.world.preferences import World
from modalign.world.prompts import ask, asked
from modalign.world.source import data

__all__ = [
    "VALUES",
    "Concept",
    "Measure",
    "Rate",
    "Verdict",
    "World",
    "ask",
    "asked",
    "concepts",
    "data",
    "judge",
    "match",
    "measure",
    "split",
]
