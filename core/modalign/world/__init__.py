"""The oracle world: concepts that every modality can show, and preferences that follow from them."""

from modalign.world.concept import EVERY, VALUES, Concept, concepts, match, split
from modalign.world.examination import Examination, examine
from modalign.world.measure import Measure, Rate, Verdict, judge, measure
from modalign.world.preferences import World
from modalign.world.prompts import ask, asked
from modalign.world.questions import Questions, answer, chance, question, questioned, read_answer
from modalign.world.source import data

__all__ = [
    "EVERY",
    "VALUES",
    "Concept",
    "Examination",
    "Measure",
    "Questions",
    "Rate",
    "Verdict",
    "World",
    "answer",
    "ask",
    "asked",
    "chance",
    "concepts",
    "data",
    "examine",
    "judge",
    "match",
    "measure",
    "question",
    "questioned",
    "read_answer",
    "split",
]
