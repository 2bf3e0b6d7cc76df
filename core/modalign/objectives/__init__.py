"""Objectives: pure functions of scores by role and targets that return a sum and a count."""

from modalign.objectives.base import Loss, Mean, Needs, Objective
from modalign.objectives.dpo import DPO
from modalign.objectives.ipo import IPO
from modalign.objectives.kto import KTO
from modalign.objectives.orpo import ORPO
from modalign.objectives.reward import BradleyTerry
from modalign.objectives.sft import SFT
from modalign.objectives.simpo import SimPO

__all__ = ["DPO", "IPO", "KTO", "ORPO", "SFT", "BradleyTerry", "Loss", "Mean", "Needs", "Objective", "SimPO"]
