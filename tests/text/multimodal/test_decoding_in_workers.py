"""Media are decoded where samples are made: once for each step, and a process that a medium kills names its row."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from PIL import Image
from torch.utils.data import get_worker_info

import modalign
from modalign.content import Part
from modalign.data import Data, Prepared, prepare, read
from modalign.errors import ResourceError
from modalign.model import Model
from modalign.objectives import DPO
from modalign.registry import registry
from modalign.roles import Content, MediaSettings, Modality
from modalign.training import Trainer
from modalign.training.callbacks import Callback, Snapshot
from modalign_image.testing import tiny_vision
from modalign_text.multimodal.assembly import MultimodalAssembly
from modalign_text.multimodal.composed import ComposedAssembly
from modalign_text.multimodal.keeping import Kept
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model

Told = Callable[[Part], None]


@pytest.fixture
def pairs(tmp_path: Path) -> Data:
    """Three pairs, each with a picture of its own in the prompt."""
    rows: list[dict[str, object]] = []
    for number in range(3):
        Image.new("RGB", (40, 48), (80 * number, 10, 10)).save(tmp_path / f"{number}.png")
        content = [{"type": "image", "image": f"{number}.png"}, {"type": "text", "text": "which colour?"}]
        rows.append({"prompt": [{"role": "user", "content": content}], "chosen": "red", "rejected": "green"})
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return read(tmp_path / "pairs.jsonl")


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """Functions that are told of each picture before it is decoded, in whichever process that is."""
    told: list[Told] = []
    kind = type(registry.modality("image"))
    decode = kind.decode

    def telling(self: Modality, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        for one in told:
            one(part)
        return decode(self, part, settings, rate=rate)

    monkeypatch.setattr(kind, "decode", telling)
    return told


def dies_over(name: str) -> Told:
    """Ends the process that decodes a file, as a decoder's crash would; the process that trains is spared."""

    def die(part: Part) -> None:
        if get_worker_info() is not None and str(part.value).endswith(name):
            os.kill(os.getpid(), signal.SIGSEGV)

    return die


def native(folder: Path) -> Model:
    return modalign.load(tiny_multimodal(folder / "llava"))


def composed(folder: Path) -> Model:
    tiny_vision(folder / "clip", "clip")
    encoders = {"image": {"path": str(folder / "clip"), "type": "vision", "connector": {"type": "mlp"}}}
    return modalign.load(tiny_model(folder / "llama", "llama"), encoders=encoders)


@pytest.mark.filterwarnings("ignore:This process")  # the fork of a test runner that has threads
def test_a_picture_that_kills_the_process_that_reads_rows_is_named(
    pairs: Data, tell: list[Told], tmp_path: Path
) -> None:
    preparer = native(tmp_path).assembly.preparer
    tell.append(dies_over("1.png"))
    with pytest.raises(ResourceError, match=r"/pairs\.jsonl:2: a process that reads rows died"):
        prepare(pairs, preparer, DPO.needs, workers=1)


@pytest.mark.filterwarnings("ignore:This process")
def test_a_picture_that_kills_the_process_that_makes_samples_is_named(
    pairs: Data, tell: list[Told], tmp_path: Path
) -> None:
    trainer = Trainer(
        model=native(tmp_path),
        objective=DPO(),
        data=pairs,
        output_dir=tmp_path / "run",
        dataloader_num_workers=1,
        per_device_train_batch_size=1,
        quiet=True,
    )
    tell.append(dies_over("1.png"))  # it was whole when rows were read
    with pytest.raises(ResourceError, match=r"/pairs\.jsonl:2: a process that prepares samples died"):
        trainer.train()


class Forgets(Callback):
    """Drops samples and media that are kept between steps, as where data are many; counts within the step."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.data: object = None
        self.decoded: list[str] = []
        self.steps: list[list[str]] = []

    def on_train_begin(self, run: Snapshot) -> None:
        self._forget()

    def on_step_end(self, run: Snapshot) -> None:
        self.steps.append(sorted(self.decoded))
        self._forget()

    def _forget(self) -> None:
        cast("MultimodalAssembly | ComposedAssembly", self.model.assembly).writer._media = Kept()
        cast(Prepared, self.data)._cache.clear()
        self.decoded.clear()


@pytest.mark.parametrize("make", [native, composed])
def test_a_picture_in_a_prompt_is_decoded_once_a_step(
    make: Callable[[Path], Model], pairs: Data, tell: list[Told], tmp_path: Path
) -> None:
    model = make(tmp_path)
    forgets = Forgets(model)
    trainer = Trainer(
        model=model,
        objective=DPO(),
        data=pairs,
        output_dir=tmp_path / "run",
        max_steps=2,
        per_device_train_batch_size=3,
        callbacks=[forgets],
        quiet=True,
    )
    forgets.data = trainer.parts.data
    tell.append(lambda part: forgets.decoded.append(str(part.value)[-5:]))
    trainer.train()
    # chosen and rejected, policy and reference: one decoding, and one pass of the tower
    assert forgets.steps == [["0.png", "1.png", "2.png"]] * 2
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["encoder/image/passes"] for row in rows[:2]] == [3, 3]
