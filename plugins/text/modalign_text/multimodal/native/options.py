"""What a config says of pictures that a checkpoint draws; saved with the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError

from modalign.config import Config
from modalign.errors import CheckpointError, ConfigError
from modalign_text.multimodal.native.pictures import Emu3Pictures, Pictures

OPTIONS: Final = "modalign_pictures.json"


@final
class PictureOptions(Config):
    """The section `model.options` of a checkpoint that draws pictures."""

    image_weight: NonNegativeFloat = 1.0
    """Weight of a picture beside a token of words in the log-likelihood of a response; 0 is context only."""

    image_ratio: str | None = Field(default=None, pattern=r"^[1-9]\d*:[1-9]\d*$")
    """Width to height of the pictures that Emu3 makes; by default its processor's, `1:1`."""

    image_area: PositiveInt | None = None
    """Pixels of the pictures that Emu3 makes; by default its processor's, 518,400."""


def options_of(said: Mapping[str, object], folder: Path | None, pictures: Pictures) -> PictureOptions:
    """What a config says, else what was saved with the model; sizes are told to ``pictures``."""
    try:
        options = PictureOptions.model_validate({**_saved(folder), **said})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["model", "options", *map(str, first["loc"])])
        known = ", ".join(PictureOptions.model_fields)
        raise ConfigError(first["msg"], where=where, got=repr(first["input"]), fix=f"settings: {known}") from error
    sizes = {name: value for name in ("ratio", "area") if (value := getattr(options, f"image_{name}")) is not None}
    if sizes and not isinstance(pictures, Emu3Pictures):
        raise ConfigError(
            "pictures of this checkpoint have one size",
            where=f"model.options.image_{next(iter(sizes))}",
            got=f"{type(pictures.vq).__name__}: {pictures.drawn()} codes",
            fix="remove it",
        )
    for name, value in sizes.items():
        setattr(pictures, name, value)
    return options


def _saved(folder: Path | None) -> Mapping[str, object]:
    place = None if folder is None else folder / OPTIONS
    if place is None or not place.is_file():
        return {}
    try:
        return PictureOptions.model_validate_json(place.read_bytes()).model_dump()
    except (ValidationError, OSError) as error:
        raise CheckpointError(
            "how this model draws pictures cannot be read",
            where=str(place),
            got=" ".join(str(error).split())[:300],
            fix="remove the file, and say it in model.options",
        ) from error
