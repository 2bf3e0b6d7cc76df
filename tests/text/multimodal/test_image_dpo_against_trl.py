"""DPO on pictures: the same rows through TRL 1.16's own trainer and collator, and through ours, give the same loss."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

pytest.importorskip("trl")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForMultimodalLM, AutoProcessor, PreTrainedModel
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

import modalign
from modalign.assembler import assemble, encode
from modalign.draws import Draws
from modalign.objectives import DPO
from modalign_text.multimodal.testing import tiny_multimodal

# warnings of TRL and what it imports are not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "per_device_train_batch_size": 2}


def picture(seed: int, *, width: int = 48) -> Image.Image:
    pixels = torch.randint(0, 256, (40, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


ROWS: list[dict[str, Any]] = [
    {
        "images": [picture(0)],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A dog, perhaps."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "No."}]}],
    },
    {
        "images": [picture(1, width=64)],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And that, then?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cat"}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "Something else entirely"}]}],
    },
]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_a_step_on_pictures_agrees(family: str, tmp_path: Path) -> None:
    folders = [tiny_multimodal(tmp_path / str(seed), family, seed=seed, scale=4.0) for seed in (0, 1)]
    processor = AutoProcessor.from_pretrained(folders[0])
    # TRL scores what a template writes behind the end of a turn, we leave it out: here is nothing behind it
    template = tmp_path / "template.jinja"
    template.write_text(cast(str, processor.chat_template).replace("<|im_end|>\n", "<|im_end|>"))
    processor.chat_template = template.read_text()
    theirs = [
        cast(PreTrainedModel, AutoModelForMultimodalLM.from_pretrained(one, dtype=torch.float32)) for one in folders
    ]
    trainer = DPOTrainer(
        model=theirs[0],
        ref_model=theirs[1],
        args=DPOConfig(output_dir=str(tmp_path / "trl"), beta=0.1, max_length=None, **SETTINGS),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=processor,
    )
    batch = trainer.data_collator(cast(Any, list(cast(Dataset, trainer.train_dataset))))
    their_model = cast(nn.Module, trainer.model).train()
    their_loss = cast(Tensor, trainer.compute_loss(their_model, dict(cast(Mapping[str, Tensor], batch))))
    their_loss.backward()

    policy, reference = (modalign.load(one, freeze=(), chat_template=template) for one in folders)
    data = modalign.read(ROWS)
    samples = [encode(data[number], policy.assembly.preparer, DPO.needs) for number in range(len(ROWS))]
    ours = assemble(samples, share=policy.shares)
    assert policy.shares
    with torch.no_grad():
        before = reference(ours, Draws())
    loss = DPO(beta=0.1)({"policy": policy(ours, Draws()), "reference": before}, ours.targets).mean
    loss.backward()

    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-4)
    gradients = {name: value.grad for name, value in policy.named_parameters()}
    compared = 0
    for name, parameter in their_model.named_parameters():
        if parameter.grad is None or not parameter.grad.norm() > 1e-6:
            continue
        gradient = gradients[renamed(name)]
        assert gradient is not None, name
        assert (gradient - parameter.grad).norm() <= 1e-3 * parameter.grad.norm(), name
        compared += 1
    assert compared >= 30  # both towers of layers, what connects them, embeddings and head


def renamed(name: str) -> str:
    """Our name of a parameter of a transformers model."""
    if name == "lm_head.weight":
        return "decoders.text.head.weight"
    inner = name.removeprefix("model.")
    if inner.startswith("language_model."):
        return inner.replace("language_model.", "backbone.decoder.", 1)
    return f"encoders.image.towers.{inner}"
