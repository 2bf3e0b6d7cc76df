"""Patches: as transformers' processors make them, the kernel as its twin, refusals.

b pictures or clips, t frames, c channels, h w pixels.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from modalign.errors import ConfigError, KernelUnavailable, ModelError, ShapeError
from modalign.registry import registry
from modalign_image.ops.patches import Layout, _announce, patches, reference

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, and Qwen2-VL's
LAYOUTS: tuple[Layout, ...] = ("plain", "merged", "whole")
normalised = partial(patches, mean=MEAN, std=STD)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, wanted: Tensor) -> None:
    # values reach (1 - 0.408) / 0.2758 = 2.15; float32 keeps 2^-23 of that, and three roundings stay under 1e-6
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_values_are_rescaled_and_normalised_by_channel() -> None:
    x = torch.tensor([0, 51, 255], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    found = patches(x, patch=2, mean=(0.5, 0.0, 1.0), std=(0.5, 0.1, 2.0))
    # (0/255 - 0.5) / 0.5 = -1; (51/255 - 0) / 0.1 = 2; (255/255 - 1) / 2 = 0; four pixels of each
    close(found, torch.tensor([[[-1.0] * 4 + [2.0] * 4 + [0.0] * 4]]))


def test_plain_patches_are_clips_pixels_as_a_convolution_reads_them() -> None:
    x = pixels(2, 3, 28, 42)
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    values = processor(images=list(x), return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    found = normalised(x, patch=14)
    close(found, rearrange(values, "b c (h p) (w q) -> b (h w) (c p q)", p=14, q=14))
    convolution = nn.Conv2d(3, 5, kernel_size=14, stride=14, bias=False)
    nn.init.normal_(convolution.weight, std=0.01, generator=torch.Generator().manual_seed(1))
    wanted = rearrange(convolution(values), "b d h w -> b (h w) d")
    torch.testing.assert_close(found @ convolution.weight.flatten(1).T, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(28, 42), (7, 13), (1, 1)])
def test_whole_pictures_are_clips_pixel_values(size: tuple[int, int]) -> None:
    x = pixels(2, 3, *size)
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    values = processor(images=list(x), return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    found = normalised(x, layout="whole")
    assert found.is_contiguous()
    close(found, values)


def test_merged_patches_are_those_of_qwen2_vl_for_pictures() -> None:
    x = pixels(2, 3, 56, 84)
    processor = Qwen2VLImageProcessor(do_resize=False)
    values = processor(images=list(x), return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    found = normalised(x, patch=14, layout="merged")
    assert found.shape == (2, 4 * 6, 3 * 2 * 14 * 14)
    close(rearrange(found, "b n d -> (b n) d"), values)


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_merged_patches_are_those_of_qwen2_vl_for_clips(t: int) -> None:
    x = pixels(1, t, 3, 56, 28)
    processor = Qwen2VLVideoProcessor(do_resize=False, do_sample_frames=False, cap_pixels_per_frame=False)
    values = processor(videos=[x[0]], return_tensors="pt", input_data_format="channels_first")["pixel_values_videos"]
    found = normalised(x, patch=14, layout="merged")
    assert found.shape == (1, -(-t // 2) * 4 * 2, 3 * 2 * 14 * 14)
    close(found[0], values)


def test_memory_laid_out_channels_last_gives_the_same() -> None:
    x = pixels(1, 3, 28, 28)
    last = x.contiguous(memory_format=torch.channels_last)
    for layout in LAYOUTS:
        assert normalised(last, patch=7, layout=layout).equal(normalised(x, patch=7, layout=layout))


def test_a_smaller_type_is_the_rounded_result() -> None:
    x = pixels(1, 3, 14, 14)
    found = normalised(x, patch=7, dtype=torch.bfloat16)
    assert found.equal(normalised(x, patch=7).bfloat16())


def test_no_pictures_give_no_patches() -> None:
    assert normalised(pixels(0, 3, 14, 14), patch=7).shape == (0, 4, 147)


_KERNEL = """
import torch
from modalign_image.ops.patches import patches
made = torch.Generator().manual_seed(0)
def pixels(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=made)
settings = dict(mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
last = pixels(1, 3, 12, 8).contiguous(memory_format=torch.channels_last)
cases = [
    (pixels(2, 3, 8, 12), dict(patch=4)),
    (pixels(1, 3, 14, 14), dict(patch=7, dtype=torch.bfloat16)),
    (last, dict(patch=2)),
    (last, dict(patch=2, layout="merged")),
    (pixels(2, 3, 12, 8), dict(patch=2, layout="merged", temporal=1)),
    (pixels(2, 3, 12, 18), dict(patch=2, layout="merged", merge=3, temporal=3)),
    (pixels(1, 5, 3, 8, 4), dict(patch=2, layout="merged")),
    (pixels(2, 4, 3, 4, 8), dict(patch=2, layout="merged")),
    (pixels(0, 3, 4, 4), dict(patch=2)),
    (pixels(2, 3, 33, 17), dict(layout="whole")),
    (last, dict(layout="whole", dtype=torch.bfloat16)),
    (pixels(0, 3, 4, 4), dict(layout="whole")),
]
for x, more in cases:
    x = x.to(DEVICE)
    twin = patches(x, impl="reference", **settings, **more)
    found = patches(x, impl="kernel", **settings, **more)
    bf16 = more.get("dtype") is torch.bfloat16  # its steps between 2 and 4 are 2^-6; the interpreter cuts, torch rounds
    torch.testing.assert_close(found, twin, atol=2**-6 if bf16 else 1e-6, rtol=0)
print(len(cases), "cases")
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | environment
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=settings, check=False)


def test_the_kernel_equals_its_twin_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    done = run(_KERNEL.replace("DEVICE", "'cpu'"), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "12 cases"


@pytest.mark.gpu
def test_the_kernel_equals_its_twin_on_a_gpu() -> None:
    done = run(_KERNEL.replace("DEVICE", "'cuda'"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "12 cases"


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="there the kernel runs")
def test_a_kernel_that_cannot_run_raises() -> None:
    with pytest.raises(KernelUnavailable, match=r"needs (a GPU|Triton).*impl='reference'"):
        normalised(pixels(1, 3, 4, 4), patch=2, impl="kernel")


def test_auto_takes_plain_torch_on_a_cpu_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    _announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="modalign_image.ops.patches"):
        for _ in range(2):
            normalised(pixels(1, 3, 4, 4), patch=2)
    assert [record.getMessage() for record in caplog.records] == ["patches: impl='auto' takes 'reference'"]


def test_the_registry_knows_the_op_and_its_twin() -> None:
    assert registry.op("patches") is patches
    assert registry.entries("ops")["patches"].declarations["reference"] == f"{reference.__module__}:reference"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"impl": "fast"}, ConfigError, "no implementation 'fast'"),
        ({"layout": "spiral"}, ConfigError, "no layout 'spiral'"),
        ({"x": torch.zeros(1, 3, 4, 4)}, ModelError, "uint8; found: torch.float32"),
        ({"x": pixels(3, 4, 4)}, ShapeError, "plain layout"),
        ({"x": pixels(1, 2, 3, 4, 4)}, ShapeError, "plain layout"),
        ({"x": pixels(1, 3, 4, 5)}, ShapeError, "multiples of 2 pixels"),
        ({"x": pixels(1, 3, 4, 6), "layout": "merged"}, ShapeError, "multiples of 2 patches of 2 pixels"),
        ({"x": pixels(1, 0, 3, 4, 4), "layout": "merged"}, ShapeError, "multiples"),
        ({"x": pixels(1, 4, 4, 4)}, ShapeError, "each of 4 channels; found: 3 and 3"),
        ({"x": pixels(1, 2, 3, 4, 4), "layout": "whole"}, ShapeError, "whole layout"),
        ({"patch": 0}, ConfigError, "at least 1"),
        ({"patch": None}, ConfigError, "patch: the plain layout cuts patches"),
        ({"std": (1.0, 0.0, 1.0)}, ConfigError, "std: a standard deviation of 0"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    arguments = {"x": pixels(1, 3, 4, 4), "patch": 2, "mean": MEAN, "std": STD} | change
    with pytest.raises(error, match=says):
        patches(arguments.pop("x"), **arguments)  # pyright: ignore[reportArgumentType]
