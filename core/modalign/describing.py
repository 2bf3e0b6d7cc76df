"""A model as a table and as a drawing: its parts, what goes in and comes out of each, and what of it trains.

m embeddings of a medium, k queries, n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final, cast, final

from torch import nn

from modalign.decoders.codes import CodeDecoder
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.freezing import parts
from modalign.roles import Connector, Decoder, Encoder

if TYPE_CHECKING:
    from modalign.model import Model

_COLUMNS: Final = ("encoder", "connector", "backbone", "conditioner", "decoder")
_WIDE, _HIGH, _GAP, _APART = 190, 64, 18, 56  # pixels of the drawing


@final
@dataclass(frozen=True, kw_only=True)
class Described:
    """One part of a model.

    name: as `model.freeze` calls it.
    role: what it is.
    kind: its class.
    shape: of what goes in and what comes out.
    parameters, trains: numbers, and those of them that train.
    """

    name: str
    role: str
    kind: str
    shape: str
    parameters: int
    trains: int


@final
@dataclass(frozen=True, kw_only=True)
class Description:
    """A model's parts, and which leads to which.

    parts: in the order of the way through the model.
    edges: names of parts.
    """

    parts: tuple[Described, ...]
    edges: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        head = ("part", "class", "shapes", "parameters", "train")
        rows = [(one.name, one.kind, one.shape, f"{one.parameters:,}", _share(one)) for one in self.parts]
        wide = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(size) for cell, size in zip(row, wide, strict=True)).rstrip() for row in (head, *rows)
        )

    def mermaid(self) -> str:
        """The drawing in Mermaid, https://mermaid.js.org."""
        names = {one.name: f"p{number}" for number, one in enumerate(self.parts)}
        lines = [
            f'  {names[one.name]}["{escape(one.name)}<br/>{escape(one.kind)}<br/>{escape(one.shape)}"]'
            for one in self.parts
        ]
        lines += [f"  {names[one]} --> {names[other]}" for one, other in self.edges]
        lines += [f"  style {names[one.name]} stroke-width:3px" for one in self.parts if one.trains]
        return "\n".join(["flowchart LR", *lines])

    def svg(self) -> str:
        """The drawing as an SVG that stands by itself; what trains has a thick border."""
        place = self._places()
        wide = max(x for x, _ in place.values()) + _WIDE + 8
        high = max(y for _, y in place.values()) + _HIGH + 8
        middle = next((place[one.name][0] for one in self.parts if one.role == "backbone"), 0.0)
        drawn = [_edge(place[one], place[other], middle) for one, other in self.edges]
        drawn += [_box(one, *place[one.name]) for one in self.parts]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" width="{wide:g}" role="img" '
            f'font-family="sans-serif" font-size="12"><title>the parts of the model</title>'
            f'<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>{"".join(drawn)}</svg>'
        )

    def _places(self) -> dict[str, tuple[float, float]]:
        """The upper left corner of each box: a column for each role, a connector or a conditioner beside its part."""
        columns = [column for role in _COLUMNS if (column := [one.name for one in self.parts if one.role == role])]
        partner = {one: other for one, other in self.edges if "backbone" not in (one, other)}
        partner |= {other: one for one, other in partner.items()}
        most = max(len(column) for column in columns)
        rows: dict[str, float] = {}
        for column in sorted(columns, key=len, reverse=True):
            for at, name in enumerate(column):
                beside = partner.get(name)
                rows[name] = rows[beside] if beside in rows else (most - len(column)) / 2 + at
        return {
            name: (number * (_WIDE + _APART) + 8.0, rows[name] * (_HIGH + _GAP) + 8.0)
            for number, column in enumerate(columns)
            for name in column
        }


def describe(model: Model) -> Description:
    """The parts of a model."""
    found: list[Described] = []
    edges: list[tuple[str, str]] = []
    known = parts(model)
    behind = "backbone" if model.backbone is not None else None

    def add(name: str, role: str, module: nn.Module, shape: str, own: Iterable[nn.Module]) -> None:
        values = {id(value): value for one in own for value in one.parameters()}.values()
        found.append(
            Described(
                name=name,
                role=role,
                kind=type(module).__name__,
                shape=shape,
                parameters=sum(value.numel() for value in values),
                trains=sum(value.numel() for value in values if value.requires_grad),
            )
        )

    for name, encoder in model.encoders.items():
        one = cast(Encoder, encoder)
        towers, joints = one.parts()
        add(f"encoders.{name}", "encoder", one, f"{name} -> m x {one.width}", [*towers, *joints])
        last = f"encoders.{name}"
        if name in model.connectors and model.backbone is not None:
            connector = cast(Connector, model.connectors[name])
            shape = f"m x {one.width} -> m x {model.backbone.width}"
            add(f"connectors.{name}", "connector", connector, shape, [connector])
            edges.append((last, f"connectors.{name}"))
            last = f"connectors.{name}"
        if behind is not None:
            edges.append((last, behind))
    if model.backbone is not None:
        add("backbone", "backbone", model.backbone, f"n x {model.backbone.width}", [model.backbone])
    for name, decoder in model.decoders.items():
        one, last = cast(Decoder, decoder), behind
        if isinstance(one, DenoisingDecoder):
            if one.conditioner is not None:
                made, key = one.conditioner, f"conditioners.{name}"
                wide = {**made.wanted.sequences, **made.wanted.vectors}
                out = ", ".join(f"{said} {wide[said].width}" for said in wide)
                add(key, "conditioner", made, f"{len(made.queries)} x {made.width} -> {out}", [made])
                if last is not None:
                    edges.append((last, key))
                last = key
            add(f"decoders.{name}", "decoder", one.denoiser, f"-> {name}", known[f"decoders.{name}"])
        elif isinstance(one, CodeDecoder):
            spelt = f"{one.codec.length} codes of {one.codec.size}"
            add(f"codes.{name}", "conditioner", one, f"n x {one.width} -> {spelt}", [one.table, one.head])
            if last is not None:
                edges.append((last, f"codes.{name}"))
            last = f"codes.{name}"
            add(f"decoders.{name}", "decoder", one.codec, f"{spelt} -> {name}", known[f"decoders.{name}"])
        else:
            add(f"decoders.{name}", "decoder", one, one.shape, known[f"decoders.{name}"])
        if last is not None:
            edges.append((last, f"decoders.{name}"))
    for name, head in model.heads.items():
        add(f"heads.{name}", "decoder", head, "-> numbers", [head])
        if behind is not None:
            edges.append((behind, f"heads.{name}"))
    return Description(parts=tuple(found), edges=tuple(edges))


def _share(one: Described) -> str:
    return "no" if not one.trains else "all" if one.trains == one.parameters else f"{one.trains:,}"


def _box(one: Described, x: float, y: float) -> str:
    thick, shade = (2.5, "#e8f0fe") if one.trains else (1, "#f5f5f5")
    said: Sequence[str] = (f"<tspan font-weight='bold'>{escape(one.name)}</tspan>", escape(one.kind), escape(one.shape))
    lines = "".join(
        f'<text x="{x + _WIDE / 2:g}" y="{y + 19 + 17 * at:g}" text-anchor="middle">{words}</text>'
        for at, words in enumerate(said)
    )
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDE}" height="{_HIGH}" rx="6" fill="{shade}" stroke="#3367d6" '
        f'stroke-width="{thick}"/>{lines}'
    )


def _edge(start: tuple[float, float], end: tuple[float, float], backbone: float) -> str:
    """From box to box, bent beside the backbone: past a column it leaps, it goes straight, in a row that is free there.

    backbone: where its column begins.
    """
    x, y = start[0] + _WIDE, start[1] + _HIGH / 2
    to, down = end[0], end[1] + _HIGH / 2
    left, right = (x, x + _APART) if start[0] >= backbone else (to - _APART, to)
    middle = (left + right) / 2
    path = f"M{x:g} {y:g}H{left:g}C{middle:g} {y:g} {middle:g} {down:g} {right:g} {down:g}H{to:g}"
    return f'<path d="{path}" fill="none" stroke="#888" stroke-width="1.5" marker-end="url(#to)"/>'
