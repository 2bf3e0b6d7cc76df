"""How a clip says that it was filmed turned or mirrored, applied to its frames.

c channels, h w pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from torch import Tensor

from modalign.errors import DataError

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame

_ONE: Final = 1 << 16  #: 1 in the fixed point of a display matrix
_NEARLY: Final = 0.01 * _ONE  #: what rounding may leave of a 0

#: by the sign of a, b, c, d in x' = a x + c y, y' = b x + d y (y down): quarter turns counterclockwise, then mirrored
_TURNS: Final = {
    (1, 0, 0, 1): (0, False),
    (0, -1, 1, 0): (1, False),
    (-1, 0, 0, -1): (2, False),
    (0, 1, -1, 0): (3, False),
    (-1, 0, 0, 1): (0, True),
    (1, 0, 0, -1): (2, True),
    (0, 1, 1, 0): (3, True),
    (0, -1, -1, 0): (1, True),
}


def orientation(frame: VideoFrame, *, field: str = "video") -> tuple[int, bool]:
    """Quarter turns counterclockwise, and whether the turned frame is mirrored from left to right; a `DataError` for
    any other display matrix, as of ISO/IEC 14496-12, 8.3.2."""
    from av.sidedata.sidedata import Type

    sides = cast("Iterable[SideData]", frame.side_data)
    matrix = next((one for one in sides if one.type == Type.DISPLAYMATRIX), None)
    if matrix is None:
        return 0, False
    first, second, _, third, fourth = struct.unpack_from("=5i", bytes(matrix))
    found = _TURNS.get((_sign(first), _sign(second), _sign(third), _sign(fourth)))
    if found is None:
        raise DataError(
            "a clip that is turned by no multiple of 90 degrees",
            field=field,
            got=f"display matrix {[one / _ONE for one in (first, second, third, fourth)]}",
            fix="turn it when you encode it: ffmpeg -i clip turned.mp4",
        )
    return found


def _sign(value: int) -> int:
    return (value > _NEARLY) - (value < -_NEARLY)


def turn(frame: Tensor, turns: int, mirrored: bool) -> Tensor:
    """A frame ``c h w`` as it was meant to be seen."""
    turned = frame.rot90(turns, (1, 2))
    return turned.flip(2) if mirrored else turned
