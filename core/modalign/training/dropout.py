"""What differs between training and evaluation mode, switched off: dropout and running statistics."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

_PATHS = frozenset({"layerdrop", "drop_prob"})  #: probabilities of leaving a whole layer or branch out


def disable_dropout(model: nn.Module) -> int:
    """Set every dropout probability to zero; returns how many there were.

    Covers dropout modules, and the numbers that modules hand to functions (`attention_dropout`, `layerdrop`, and
    `drop_prob`, which is stochastic depth).
    """
    found = 0
    for module in model.modules():
        if isinstance(module, _DropoutNd) and module.p:
            module.p, found = 0.0, found + 1
        for name, value in vars(module).items():
            if ("dropout" in name or name in _PATHS) and isinstance(value, float) and value:
                setattr(module, name, 0.0)
                found += 1
    return found


def train_mode(model: nn.Module) -> None:
    """Training mode, but for running statistics, which stay those that the reference sees."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
