"""Tensors in a safetensors file, written one at a time and read by the safetensors library.

The format: eight bytes of length, a JSON header with dtype, shape and place of each tensor, and the bytes of each,
little-endian and row-major (https://huggingface.co/docs/safetensors#format). The library can only write a whole file
at once; ours goes through `write_file`, which hashes each block and says what the disk says, and holds no second copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modalign.errors import CheckpointError
from modalign.training.storage.foreign import FIX, sniff

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file that these tensors make."""
    return len(_header(tensors)) + sum(tensor.nbytes for tensor in tensors.values())


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file's bytes in order; a tensor is brought to the CPU when its turn comes."""
    yield _header(tensors)
    for name in _order(tensors):
        still = tensors[name].detach().cpu().contiguous()
        yield rearrange(still, "... -> (...)").view(torch.uint8).numpy().data


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file whose digest has been checked, by name, as copies that do not depend on it."""
    if kind := sniff(path):
        raise CheckpointError("not a safetensors file", where=str(path), got=kind, fix=FIX)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError("not a safetensors file", where=str(path), got=error) from error


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    # Wide types first: every tensor then starts at a multiple of its width.
    return sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in _order(tensors):
        tensor = tensors[name]
        if name == "__metadata__" or tensor.dtype not in _NAMES or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"cannot store the tensor {name!r}",
                got=f"{tensor.dtype}, {tensor.layout}, on {tensor.device}",
                fix="store dense tensors of the types that safetensors knows",
            )
        stop = start + tensor.nbytes
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
