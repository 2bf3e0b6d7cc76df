"""The whole plugin contract on one screen.

A hook registers names with import strings (`"package.module:Object"`) and declarations, so that nothing heavy is
imported until one is used. Every hook takes `register(name, target, **declarations)`. Any may declare `probe`, the
import string of a function that makes something to try it on, for `modalign.testing.check_plugin`.
"""

from __future__ import annotations

from typing import Protocol

import pluggy

API = "v1"  #: version of this contract; plugins advertise themselves in the entry-point group `modalign.v1`
GROUP = f"modalign.{API}"

hookspec = pluggy.HookspecMarker("modalign")
hookimpl = pluggy.HookimplMarker("modalign")


class Register(Protocol):
    """Registers one name; a declaration the kind does not know is an error."""

    def __call__(self, name: str, target: str, /, **declarations: object) -> None: ...


class Hooks:
    """Every hook there is."""

    @hookspec
    def register_modalities(self, register: Register) -> None:
        """`Modality`: reads, decodes, saves and shows a part. Declares `blocks` and `columns` it claims, `strings`."""

    @hookspec
    def register_loaders(self, register: Register) -> None:
        """`Loader`: a folder or id becomes a model."""

    @hookspec
    def register_encoders(self, register: Register) -> None:
        """`Encoder`: decoded media to embeddings, before any backbone. Declares `modality`."""

    @hookspec
    def register_connectors(self, register: Register) -> None:
        """`Connector`: embeddings to another width, or to another number of them."""

    @hookspec
    def register_backbones(self, register: Register) -> None:
        """`Backbone`: the sequence model over embeddings."""

    @hookspec
    def register_decoders(self, register: Register) -> None:
        """`Decoder`: states to units. Declares `modality` and `kind`."""

    @hookspec
    def register_formats(self, register: Register) -> None:
        """`Format`: rows to comparisons. Declares `priority`: where two claim the same rows the higher is asked."""

    @hookspec
    def register_heads(self, register: Register) -> None:
        """`Head`: states to numbers that judge a response."""

    @hookspec
    def register_objectives(self, register: Register) -> None:
        """`Objective`: scores and targets to a loss."""

    @hookspec
    def register_rewards(self, register: Register) -> None:
        """`Reward`: judges responses without being trained."""

    @hookspec
    def register_ops(self, register: Register) -> None:
        """A fused op: a function that takes `impl`. Declares `reference`, its plain torch twin."""

    @hookspec
    def register_depictions(self, register: Register) -> None:
        """`Depiction`: the oracle world in one modality. Declares `modality`."""

    @hookspec
    def register_checks(self, register: Register) -> None:
        """`Check`: something `modalign doctor` tries."""
