"""What the doctor and loading say where a mate of torch is broken or absent: in processes that really lack it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from modalign_image.testing import tiny_vision
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model
from modalign_video.testing import tiny_video

FOUND = importlib.util.find_spec("torch")
assert FOUND is not None
assert FOUND.origin is not None
SITE = Path(FOUND.origin).parent.parent

#: what really is raised, on import or when it is first used
MISMATCHED = {
    "torchvision": {"__init__": "raise RuntimeError('operator torchvision::nms does not exist')"},
    "torchaudio": {"__init__": "raise OSError('libtorchaudio.so: undefined symbol: _ZN3c104cuda9SetDeviceEab')"},
    "torchcodec": {
        "__init__": "",
        "decoders": "",
        "_core/__init__": "",
        "_core/ops": "def get_ffmpeg_library_versions():\n"
        "    raise RuntimeError('Could not load libtorchcodec. Likely causes:\\n1. FFmpeg is not properly installed')",
    },
}
VERSIONS = {"torchvision": "0.29.2", "torchaudio": "2.11.0", "torchcodec": "0.17.0"}

_RUN = """
import json, site, sys
site.addsitedir(sys.argv[1])
from modalign.doctor import describe, examine
found = describe(examine())
import modalign
errors = []
for settings in json.loads(sys.argv[2]):
    try:
        modalign.load(**settings)
    except modalign.errors.ModalignError as error:
        errors.append(str(error))
    else:
        errors.append("")
print(json.dumps([found, errors]))
"""


def packages(folder: Path, *, broken: tuple[str, ...] = (), absent: tuple[str, ...] = ()) -> Path:
    """The packages of this environment, some of them missing and others in a state that is really met."""
    folder.mkdir()
    for one in SITE.iterdir():
        if one.name.partition("-")[0].partition(".")[0] not in {*broken, *absent}:
            (folder / one.name).symlink_to(one)
    for name in broken:
        for module, source in MISMATCHED[name].items():
            place = folder / name / f"{module}.py"
            place.parent.mkdir(exist_ok=True)
            place.write_text(source + "\n")
        about = folder / f"{name}-{VERSIONS[name]}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSIONS[name]}\n")
    return folder


def examined(folder: Path, *settings: Mapping[str, object]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The doctor's findings by name, and the error of loading each of these models, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _RUN, str(folder), json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, errors = json.loads(done.stdout.splitlines()[-1])
    return {one["name"]: one for one in found["findings"]}, errors


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_multimodal(folder / "native", "llava")
    tiny_multimodal(folder / "clips", "qwen2_5_vl")
    (folder / "words").mkdir()
    tiny_model(folder / "words")
    tiny_vision(folder / "tower")
    tiny_video(folder / "clip-tower")
    return folder


def test_a_torchvision_of_another_torch_is_told_with_all_that_it_breaks(models: Path, tmp_path: Path) -> None:
    found, (native, composed) = examined(
        packages(tmp_path / "site", broken=("torchvision",)),
        {"model": str(models / "native")},
        {"model": str(models / "words"), "encoders": {"image": {"path": str(models / "tower")}}},
    )
    one = found["torchvision"]
    assert one["ok"] is False
    assert one["found"].startswith("0.29.2 is installed and broken: RuntimeError: operator torchvision::nms does not")
    assert "it breaks every model and every image and video processor of transformers, and peft" in one["found"]
    mate = f"torchvision==0.{int(torch.__version__.split('.')[1]) + 15}.*"
    assert one["fix"].startswith("pip install --force-reinstall --no-deps ")
    assert mate in one["fix"]
    assert one["fix"].endswith("or, to do without it, pip uninstall -y torchvision")
    for name in ("transformers", "peft"):  # which are well themselves
        assert found[name]["ok"] is False
        assert "torchvision is installed and broken, and everything that imports it fails" in found[name]["found"]
        assert found[name]["fix"] == one["fix"]
    for name in ("torch", "torchaudio", "pillow", "soundfile", "av"):
        assert found[name]["ok"] is True
    for error in (native, composed):
        assert "run `modalign doctor`" in error
        assert "operator torchvision::nms does not exist" in error


def test_a_torchaudio_of_another_torch_is_told_with_all_that_it_breaks(models: Path, tmp_path: Path) -> None:
    found, (error,) = examined(
        packages(tmp_path / "site", broken=("torchaudio", "torchcodec")), {"model": str(models / "words")}
    )
    one = found["torchaudio"]
    assert one["ok"] is False
    assert "installed and broken: OSError: libtorchaudio.so: undefined symbol" in one["found"]
    assert "it breaks every model of transformers and peft" in one["found"]
    assert '"torchaudio==2.11.*"' in one["fix"]
    assert "torchaudio is installed and broken" in found["transformers"]["found"]
    assert found["torchvision"]["ok"] is True
    assert "run `modalign doctor`" in error
    assert "undefined symbol" in error
    codec = found["torchcodec"]  # imports, and finds no FFmpeg when it is first used
    assert codec["ok"] is False
    assert "Could not load libtorchcodec" in codec["found"]
    assert "it breaks the backend `torchcodec`, so that clips are decoded by PyAV" in codec["found"]
    assert codec["fix"].startswith("install FFmpeg; else pip install")


def test_a_mate_that_nobody_needs_may_be_absent_and_what_is_different_is_told(models: Path, tmp_path: Path) -> None:
    found, (error,) = examined(packages(tmp_path / "site", absent=("torchcodec",)), {"model": str(models / "clips")})
    one = found["torchcodec"]
    assert one["ok"] is None
    assert one["found"].startswith("not installed: clips are decoded by PyAV")
    assert one["fix"].startswith("pip install --no-deps ")
    assert error == ""


def test_a_plugin_without_its_mate_is_named_with_the_command_and_words_still_train(
    models: Path, tmp_path: Path
) -> None:
    clips = {"video": {"path": str(models / "clip-tower"), "type": "video"}}
    found, (words, *others) = examined(
        packages(tmp_path / "site", absent=tuple(MISMATCHED)),
        {"model": str(models / "words")},
        {"model": str(models / "native")},
        {"model": str(models / "words"), "encoders": {"image": {"path": str(models / "tower")}}},
        {"model": str(models / "words"), "encoders": clips, "media": {"video": {"frames": 4}}},
        {"model": str(models / "clips")},
    )
    for name, package in (("image", "torchvision"), ("audio", "torchaudio"), ("video", "torchvision")):
        assert found[f"plugin {name}"]["ok"] is None
        assert f"{package} is missing" in found[f"plugin {name}"]["found"]
        assert found[f"plugin {name}"]["fix"] == f'pip install "modalign[{name}]"'
    assert found["transformers"]["ok"] is found["peft"]["ok"] is True
    assert words == ""
    for error, name in zip(others, ("image", "image", "video"), strict=False):
        assert f"no modality '{name}'" in error
        assert "torchvision is missing" in error
        assert f'pip install "modalign[{name}]"' in error
    assert "Torchvision" in others[-1]  # transformers' own words: its processor is for clips too
    assert "run `modalign doctor`" in others[-1]
