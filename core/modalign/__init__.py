"""modalign: align any-to-any models with human preferences."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modalign.comparison import Comparison
    from modalign.composing import compose
    from modalign.config import AdapterConfig, DataConfig, GenerationConfig, ModelConfig
    from modalign.content import Message, Part, Response
    from modalign.data import read
    from modalign.hookspecs import hookimpl
    from modalign.loading import load
    from modalign.model import Model
    from modalign.objectives import DPO, IPO, KTO, ORPO, SFT, BradleyTerry, SimPO
    from modalign.reward import RewardModel
    from modalign.training import Trainer, TrainingConfig

__version__ = "0.1.0"

# Heavy modules are imported when one of their names is first used, so that `modalign plugins` answers at once.
_HOMES = {
    "AdapterConfig": "config",
    "BradleyTerry": "objectives",
    "Comparison": "comparison",
    "DPO": "objectives",
    "DataConfig": "config",
    "GenerationConfig": "config",
    "IPO": "objectives",
    "KTO": "objectives",
    "Message": "content",
    "Model": "model",
    "ModelConfig": "config",
    "ORPO": "objectives",
    "Part": "content",
    "Response": "content",
    "RewardModel": "reward",
    "SFT": "objectives",
    "SimPO": "objectives",
    "Trainer": "training",
    "TrainingConfig": "training",
    "compose": "composing",
    "hookimpl": "hookspecs",
    "load": "loading",
    "read": "data",
}

__all__ = [
    "DPO",
    "IPO",
    "KTO",
    "ORPO",
    "SFT",
    "AdapterConfig",
    "BradleyTerry",
    "Comparison",
    "DataConfig",
    "GenerationConfig",
    "Message",
    "Model",
    "ModelConfig",
    "Part",
    "Response",
    "RewardModel",
    "SimPO",
    "Trainer",
    "TrainingConfig",
    "compose",
    "hookimpl",
    "load",
    "read",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'modalign' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"modalign.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
