"""The towers of a checkpoint loaded whole, as encoders: a medium's embeddings are what the decoder would be given.

No family says by a common name how it turns media into embeddings. Every one hands them to its decoder, so a row of
nothing but the medium's placeholders is run up to there and no further. What reaches the decoder beside embeddings
(deepstack: features that are added to later layers) comes along; what is not known is refused at load.

m embeddings of a medium, d width, k layers that take further features.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NoReturn, cast, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.batch import Medium
from modalign.errors import ModelError, ShapeError
from modalign.roles import Content, Encoder
from modalign_text.multimodal.answers import Answers
from modalign_text.multimodal.processing import ProcessorWriter

#: what a decoder is given whatever the media are
_ORDINARY: Final = frozenset(
    {
        "attention_mask",
        "cache_position",
        "input_ids",
        "inputs_embeds",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "past_key_values",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
OWN: Final = "own"  #: parameters that lie beside the towers, in none of them
_DEEP: Final = ("visual_pos_masks", "deepstack_visual_embeds")


class NotInSequence(ModelError):
    """A family whose media are not embeddings in the sequence: its decoder looks at them in another way."""


@final
class TowerEncoder(Encoder):
    """Media of one modality through the towers and projectors of a checkpoint.

    library: the whole model; its decoder is never run here.
    towers: its modules beside decoder and head, which are this module's children, whichever modality they are for.

    Embeddings are ``m d``, or ``m (1 + k) d`` wide where k later layers take further features.
    """

    def __init__(self, library: PreTrainedModel, modality: str, writer: ProcessorWriter, towers: nn.ModuleDict) -> None:
        super().__init__()
        self.modality = modality
        self.towers = towers
        self.width = int(library.config.get_text_config().hidden_size)
        self.rate = writer.rate(modality)
        self.facts = writer.facts(modality)
        self._outside = (library,)  # in a tuple: its decoder is the backbone's, and no child of this module
        self._writer = writer
        self._answers = Answers(modality)
        self._tabled = False  # whether embeddings come out of the decoder's own table
        self._passed = 0  # media of the call under way that a tower was run on

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        used = [self.towers[name] for name in self._names]
        return (
            [one for one in used if isinstance(one, PreTrainedModel)],
            [one for one in used if not isinstance(one, PreTrainedModel)],
        )

    @property
    def _names(self) -> list[str]:
        """The towers this modality runs through, as far as is known."""
        ran = self._answers.ran
        # a tower that is called by another method than forward goes unseen: where none is seen all of them count
        return [name for name in self.towers if not ran or name in ran or name == OWN]

    @property
    def frozen(self) -> bool:
        if self._tabled and self.table.weight.requires_grad:
            return False
        return not any(value.requires_grad for name in self._names for value in self.towers[name].parameters())

    @property
    def unstored(self) -> str:
        if self.frozen:
            return ""
        named = {name: tower for name in self._names if isinstance(tower := self.towers[name], PreTrainedModel)}
        frozen = [name for name, one in named.items() if not any(value.requires_grad for value in one.parameters())]
        reasons = [self._answers.why_not(name) for name in frozen]
        return "" if "" in reasons else "; ".join(reasons) or "its towers train"

    @property
    def table(self) -> nn.Embedding:
        """The decoder's embeddings of tokens, which some families read their pictures from."""
        return cast(nn.Embedding, self._outside[0].get_input_embeddings())

    def prepare(self, content: Content) -> Medium:
        return self._writer.prepare(content)

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        found: dict[str | int, Tensor] = {}
        names = [medium.digest or number for number, medium in enumerate(media)]
        self._passed = 0
        for group in self._groups(media):
            sizes = [medium.cost for medium in group]
            whole = self._run(group)
            if len(whole) != sum(sizes):
                raise ShapeError(
                    f"the processor wrote {sum(sizes)} placeholders", got=f"{len(whole)} embeddings of {self.modality}"
                )
            own = [medium.digest or names[_index(media, medium)] for medium in group]
            found.update(zip(own, whole.split(sizes), strict=True))
        self.ran(self._passed)
        return [found[name] for name in names]

    def _groups(self, media: Sequence[Medium]) -> list[tuple[Medium, ...]]:
        """Media that go through the towers together.

        Those that have been through in this step go with the ones they went with, so that what the towers gave then
        can be taken again: a projector that trains behind them does a little more, and no tower runs twice. What a
        folder is to keep of a medium must not depend on others: then each goes through alone.
        """
        if self.memo is None:
            return _alike(media)
        before: dict[int, tuple[Medium, ...]] = {}
        fresh: list[Medium] = []
        for medium in media:
            known = self.memo.recall(f"group:{self.modality}", medium.digest) if medium.digest else None
            if known is None:
                fresh.append(medium)
            else:
                before[id(known)] = cast("tuple[Medium, ...]", known)
        groups = _alike(fresh) if self.memo.cache is None else [(medium,) for medium in fresh]
        for group in groups:
            for medium in group:
                if medium.digest:
                    self.memo.keep(f"group:{self.modality}", medium.digest, group)
        return [*before.values(), *groups]

    def learn(self, medium: Medium) -> None:
        """Find by one medium which towers this modality runs through, what of them it reads, and if it reads the table.

        The table is the decoder's, of its tokens' embeddings.
        """
        towers = dict(self.towers.items())
        weight = self.table.weight
        before = weight.requires_grad
        try:
            with torch.enable_grad(), self._answers.learning(towers) as given:
                weight.requires_grad_(True)
                embeddings = self._run([medium])
                leaves = [one for own in given.values() for one in own.values()]
                gradient, *found = torch.autograd.grad(embeddings.sum(), [weight, *leaves], allow_unused=True)
        finally:
            weight.requires_grad_(before)
        self._tabled = gradient is not None and bool(gradient.any())
        read = {id(leaf) for leaf, one in zip(leaves, found, strict=True) if one is not None}
        unread = {name: {key: one for key, one in own.items() if id(one) not in read} for name, own in given.items()}
        self._answers.learned(towers, unread, lambda: self._run([medium]))

    def _run(self, media: Sequence[Medium]) -> Tensor:
        """Embeddings of media whose tensors fit together, ``m d`` or ``m (1 + k) d``, one behind the other."""
        (library,) = self._outside
        device, dtype = self.table.weight.device, self.table.weight.dtype
        ids = torch.tensor([[token for medium in media for token in _placeholders(medium)]], device=device)
        tensors = {
            name: (value.to(device, dtype) if value.is_floating_point() else value.to(device))
            for name, value in self._writer.laid(media).items()
        }
        types = self._writer.types(ids.tolist()).to(device)
        given: dict[str, object] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": torch.arange(ids.shape[1], device=device)[None],
            "token_type_ids": types,
            "mm_token_type_ids": types,
            "use_cache": False,
        }
        known = inspect.signature(type(library).forward).parameters
        arguments = {name: value for name, value in given.items() if name in known}
        with _caught(library) as caught, self._taken(media) as ran:
            _call(library, **arguments, **tensors)
        self._passed += len(media) if ran else 0
        return _embeddings(caught[0], type(library).__name__)

    def _taken(self, media: Sequence[Medium]) -> AbstractContextManager[set[str]]:
        """Within it frozen towers answer again what they did; gives the names of those that ran."""
        used = {name: self.towers[name] for name in self._names}
        # what is frozen to the end is stored whole, behind its projector
        return self._answers.taken(used, media, self.memo, facts=self.facts, store=not self.frozen)


def towers_of(library: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules of a checkpoint beside its decoder and head, by a name of their own.

    >>> from modalign_text.multimodal.testing import MULTIMODAL
    >>> list(towers_of(MULTIMODAL["llava"]()[0]))
    ['vision_tower', 'multi_modal_projector']
    """
    decoder, head = library.get_decoder(), library.get_output_embeddings()

    own: dict[str, nn.Parameter] = {}

    def walk(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        own.update(module.named_parameters(recurse=False))
        for name, child in module.named_children():
            if child is decoder or child is head:
                continue
            if any(inner is decoder for inner in child.modules()):
                yield from walk(child)
            else:
                yield name, child

    found = dict(walk(library))
    return found | ({OWN: nn.ParameterDict(own)} if own else {})


def _placeholders(medium: Medium) -> tuple[int, ...]:
    return cast("tuple[int, ...]", medium.extra["placeholders"])


def _alike(media: Sequence[Medium]) -> list[tuple[Medium, ...]]:
    """The media in groups that may go through a tower together: nothing of theirs has to be filled up."""
    groups: dict[object, list[Medium]] = {}
    for medium in media:
        shapes = tuple(sorted((name, (*value.shape[1:],)) for name, value in medium.tensors.items()))
        groups.setdefault(shapes, []).append(medium)
    return [tuple(group) for group in groups.values()]


def _index(media: Sequence[Medium], medium: Medium) -> int:
    return next(number for number, one in enumerate(media) if one is medium)


class _Reached(Exception):
    """The decoder was reached: nothing behind it is needed."""


@contextmanager
def _caught(library: PreTrainedModel) -> Iterator[list[Mapping[str, object]]]:
    """Within it, what the decoder is called with is caught, and the call ends there."""
    caught: list[Mapping[str, object]] = []

    def stop(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> NoReturn:
        caught.append(kwargs)
        raise _Reached

    hook = library.get_decoder().register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield caught
    finally:
        hook.remove()


def _call(library: PreTrainedModel, **arguments: object) -> None:
    try:
        cast("Callable[..., object]", library)(**arguments)
    except _Reached:
        return
    raise NotInSequence("this family does not give its media to its decoder", got=type(library).__name__)


def _embeddings(caught: Mapping[str, object], family: str) -> Tensor:
    """What the decoder was given for the only row, ``m d`` or ``m (1 + k) d``."""
    more = sorted(
        name for name, value in caught.items() if value is not None and name not in _ORDINARY and name not in _DEEP
    )
    inputs = caught.get("inputs_embeds")
    if more or not isinstance(inputs, Tensor):
        raise NotInSequence(
            "this family gives its decoder more than embeddings",
            got=f"{family}: {', '.join(more) or 'no embeddings'}",
            fix="use a family that puts media into the sequence (docs/media.md lists those that were tried)",
        )
    mask, deep = (caught.get(name) for name in _DEEP)
    if deep is None:
        return inputs[0]
    assert isinstance(mask, Tensor)
    layers = [inputs.new_zeros(inputs[0].shape).index_put((mask[0],), one) for one in cast("Sequence[Tensor]", deep)]
    return torch.cat([inputs[0], *layers], dim=-1)
