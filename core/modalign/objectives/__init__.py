"""Objectives: pure functions of scores by role and targets that return a sum and a count."""

from modalign.objectives.base import HeadSpec, Loss, Mean, Needs, Objective, Predictions
from modalign.objectives.cost import Cost
from modalign.objectives.dpo import DPO
from modalign.objectives.ipo import IPO
from modalign.objectives.kto import KTO
from modalign.objectives.moderation import Moderation
from modalign.objectives.ordinal import Ordinal
from modalign.objectives.orpo import ORPO
from modalign.objectives.rao_kupper import RaoKupper
from modalign.objectives.regression import Regression
from modalign.objectives.reward import BradleyTerry
from modalign.objectives.reward_gradient import DRaFT, ReFL, RewardGradient
from modalign.objectives.reward_weighted import RewardWeighted
from modalign.objectives.sft import SFT
from modalign.objectives.simpo import SimPO
from modalign.objectives.thurstone import Thurstone

__all__ = [
    "DPO",
    "IPO",
    "KTO",
    "ORPO",
    "SFT",
    "BradleyTerry",
    "Cost",
    "DRaFT",
    "HeadSpec",
    "Loss",
    "Mean",
    "Moderation",
    "Needs",
    "Objective",
    "Ordinal",
    "Predictions",
    "RaoKupper",
    "ReFL",
    "Regression",
    "RewardGradient",
    "RewardWeighted",
    "SimPO",
    "Thurstone",
]
