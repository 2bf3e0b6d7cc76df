"""Core's Triton kernels without a GPU: equal to their twins in the interpreter, and compiled for one; on one by mark.

b samples.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_EQUAL = """
import torch
from modalign.ops.add_noise import add_noise
from modalign.ops.squared_error import squared_error
made = torch.Generator().manual_seed(0)
def values(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=made, dtype=torch.float64).to(dtype).to(DEVICE)
full, half, double = torch.float32, torch.bfloat16, torch.float64
# 4096 values are one program of the sums, 1024 of the rest; some shapes fill theirs and some do not
cases = [(shape, full) for shape in [(2, 3, 4), (3, 1), (1, 4096), (2, 4099), (2, 0), (0, 3)]]
cases += [((2, 1030), half), ((2, 1030), double)]
done = 0
for shape, dtype in cases:
    # bf16 has steps of 2^-8: the interpreter cuts, torch rounds, and plain torch rounds each product besides
    close = dict(atol=1e-6, rtol=1e-6) if dtype is full else dict(atol=2**-5, rtol=2**-6)
    close = dict(atol=1e-14, rtol=1e-14) if dtype is double else close
    clean, noise = values(*shape, dtype=dtype), values(*shape, dtype=dtype)
    signal, amount = (torch.rand(shape[0], generator=made, dtype=double).to(DEVICE) for _ in range(2))
    for prediction in ("epsilon", "v", "sample", "flow"):
        given = (clean, noise, signal, amount)
        found = add_noise(*given, prediction=prediction, impl="kernel")
        twin = add_noise(*given, prediction=prediction, impl="reference")
        for one, other in zip(found, twin, strict=True):
            torch.testing.assert_close(one, other, **close)
        done += 1
    prediction, target = values(*shape, dtype=dtype), values(*shape)
    prediction.requires_grad_(), target.requires_grad_()
    upstream = torch.rand(shape[0], generator=made, dtype=double).to(DEVICE)
    found = squared_error(prediction, target, impl="kernel")
    twin = squared_error(prediction, target, impl="reference")
    torch.testing.assert_close(found, twin, rtol=1e-13, atol=0)  # the order of a float64 sum
    mine = torch.autograd.grad(found, (prediction, target), upstream)
    theirs = torch.autograd.grad(twin, (prediction, target), upstream)
    for one, its in zip(mine, theirs, strict=True):
        assert one.dtype == its.dtype
        assert one.equal(its) or (dtype is half and torch.allclose(one, its, atol=2**-5, rtol=2**-6))
    done += 1
print(done, "cases")
"""

_LAWS = """
import torch
from modalign.errors import KernelUnavailable
from modalign.ops.add_noise import kernel as noised
from modalign.ops.squared_error import kernel as errors
made = torch.Generator().manual_seed(0)
def values(*shape, dtype=torch.float64, trains=True):
    return torch.randn(shape, generator=made, dtype=torch.float64).to(dtype).to(DEVICE).requires_grad_(trains)

# gradients are those of finite differences, and a gradient of noise has one of its own
prediction, target = values(2, 2), values(2, 2)
torch.autograd.gradcheck(errors, (prediction, target))
torch.autograd.gradcheck(lambda one: errors(one, target.detach()), (prediction,))
signal, amount = (values(2, trains=False) for _ in range(2))
for name in ("epsilon", "v"):
    run = lambda clean, noise: noised(clean, noise, signal, amount, prediction=name)
    torch.autograd.gradcheck(run, (prediction, target))
    torch.autograd.gradgradcheck(run, (prediction, target))

# what lies beside a sample does not change it, nor where it lies, nor how
many, wanted = values(3, 5001, dtype=torch.float32, trains=False), values(3, 5001, dtype=torch.float32, trains=False)
together = errors(many, wanted)
for at in range(3):
    assert errors(many[at:at + 1], wanted[at:at + 1]).equal(together[at:at + 1]), at
turned = many.T.contiguous().T
assert not turned.is_contiguous() and errors(turned, wanted).equal(together)
kept = torch.empty_like(many).copy_(many)
assert errors(many, kept).equal(torch.zeros(3, dtype=torch.float64, device=many.device))

# between the passes prediction and target are kept, and nothing in float64
seen = {}
def pack(value):
    seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return value
leaf = many.clone().requires_grad_()
with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
    held = errors(leaf, wanted)
assert sum(seen.values()) == 2 * 4 * 3 * 5001, seen
try:
    torch.autograd.grad(held.sum(), leaf, create_graph=True)
except KernelUnavailable as error:
    assert "no second derivative" in str(error) and "impl='reference'" in str(error), error
else:
    raise AssertionError("a second derivative")
print("all hold")
"""

_COMPILED = """
from importlib import import_module
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
noise, errors = (import_module(f"modalign.ops.{name}_kernel") for name in ("add_noise", "squared_error"))
sizes = {"values": "i32", "parts": "i32"}
for kind in ("*fp32", "*bf16"):
    mixed = {"x": kind, "y": kind, "matrix": "*fp32", "first": kind, "second": kind}
    given = {"prediction": kind, "target": "*fp32", "out": "*fp64", "one": kind, "other": "*fp32", "grad": "*fp64"}
    for kernel, types, constants in (
        (noise._sums, mixed, {"rows": 2}),
        (errors._errors, given, {"blocks": 4}),
        (errors._slopes, given | {"out": kind}, {}),
        *([(errors._totals, {"out": "*fp64", "totals": "*fp64"}, {})] if kind == "*fp32" else []),
    ):
        no = dict.fromkeys(("double", "double_prediction", "double_target", "double_one", "double_other"), False)
        every = {**no, **constants, "block": 1024}
        order = kernel.arg_names
        signature = {one: "constexpr" if one in every else (types | sizes)[one] for one in order}
        known = {(order.index(one),): value for one, value in every.items() if one in order}
        assert "cubin" in compile(ASTSource(kernel, signature, known), target=GPUTarget("cuda", 90, 32)).asm
print("compiled")
"""


def run(script: str, **environment: str) -> str:
    """What a script prints in a process of its own: Triton takes its interpreter, or leaves it, as it is imported."""
    device = "cpu" if environment.get("TRITON_INTERPRET") else "cuda"
    settings = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | environment
    command = [sys.executable, "-W", "error", "-c", script.replace("DEVICE", repr(device))]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kernels_equal_their_twins_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    assert run(_EQUAL, TRITON_INTERPRET="1") == "40 cases"


def test_kernels_keep_their_laws_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    assert run(_LAWS, TRITON_INTERPRET="1") == "all hold"


def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    assert run(_COMPILED, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


@pytest.mark.gpu
def test_kernels_equal_their_twins_on_a_gpu() -> None:
    assert run(_EQUAL) == "40 cases"


@pytest.mark.gpu
def test_kernels_keep_their_laws_on_a_gpu() -> None:
    assert run(_LAWS) == "all hold"
