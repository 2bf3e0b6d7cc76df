"""Actions for modalign: chunks of a robot's actions in prompts and responses, read, written and aligned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import modalign
from modalign.hookspecs import Register

if TYPE_CHECKING:
    from modalign_action.expert import new_expert
    from modalign_action.fitting import fit
    from modalign_action.space import ActionSpace

__all__ = ["ActionSpace", "fit", "new_expert"]

_WHERE = {"ActionSpace": "space", "fit": "fitting", "new_expert": "expert"}


def __getattr__(name: str) -> object:
    """What people call, imported when they do: registering imports nothing heavy."""
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


@modalign.hookimpl
def register_modalities(register: Register) -> None:
    """Chunks of actions as parts."""
    register(
        "action",
        "modalign_action.modality:ActionModality",
        blocks=("action",),
        columns=("action", "actions"),
        probe="modalign_action.testing:parts",
    )


@modalign.hookimpl
def register_encoders(register: Register) -> None:
    """What reads them before a language model."""
    register(
        "action",
        "modalign_action.encoder:ActionEncoder",
        modality="action",
        probe="modalign_action.testing:encoder",
    )


@modalign.hookimpl
def register_decoders(register: Register) -> None:
    """Discrete actions, which a language model writes itself."""
    register(
        "action-bins",
        "modalign_action.bins:BinDecoder",
        modality="action",
        kind="token",
        probe="modalign_action.testing:binned",
    )


@modalign.hookimpl
def register_loaders(register: Register) -> None:
    """Continuous actions, by flow matching."""
    register("action-expert", "modalign_action.loader:ExpertLoader", probe="modalign_action.testing:expert")


@modalign.hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in movements of an arm."""
    register("action", "modalign_action.world:ActionDepiction", modality="action")
