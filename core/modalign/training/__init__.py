"""Training: the trainer, its settings, and what may watch it."""

from modalign.training.callbacks import Callback, Snapshot
from modalign.training.config import TrainConfig, TrainingConfig
from modalign.training.trainer import Trainer, TrainResult

__all__ = ["Callback", "Snapshot", "TrainConfig", "TrainResult", "Trainer", "TrainingConfig"]
