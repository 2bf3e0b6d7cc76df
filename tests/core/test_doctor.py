"""The doctor: says what works, what is broken and by which command it is mended, and never falls over itself."""

import builtins
import json
import shutil
import sys
from collections import namedtuple
from importlib.metadata import version
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from modalign.checks import Disk, Torch, library
from modalign.cli.doctor import doctor
from modalign.cli.plugins import describe, plugins
from modalign.doctor import Finding, examine, healthy
from modalign.hookspecs import hookimpl
from modalign.integrations import mates
from modalign.integrations.mates import torch_mate
from modalign.registry import Registry
from modalign.roles import Check, CheckResult


class Good(Check):
    def __call__(self):
        return CheckResult(ok=True, found="1.0")


class Raising(Check):
    def __call__(self):
        raise SystemExit("gone")


class Vague(Check):
    def __call__(self):
        return cast(CheckResult, "fine")


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A plugin of three checks: a good one, one that ends the program, one that answers nonsense."""
    module = ModuleType("modalign_doctor_for_tests")
    module.__dict__.update(Good=Good, Raising=Raising, Vague=Vague)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def register_checks(register) -> None:
        for name in ("Good", "Raising", "Vague"):
            register(name.lower(), f"{module.__name__}:{name}")
        register("gone", "zz_nowhere:Gone")

    return SimpleNamespace(register_checks=hookimpl(register_checks))


def test_every_installed_library_of_ours_is_tried_and_works() -> None:
    found = {finding.name: finding for finding in examine()}
    assert {"python", "torch", "accelerate", "disk", "transformers", "peft", "pillow", "soundfile", "av"} <= set(found)
    assert [finding for finding in found.values() if finding.ok is False and finding.name != "torchcodec"] == []
    assert found["accelerate"].found == version("accelerate")


def test_checks_that_fail_are_findings_and_the_others_are_still_tried(seeded: SimpleNamespace) -> None:
    registry = Registry(entry_points=[])
    with registry.scoped(seeded, name="seeded"):
        found = {finding.name: finding for finding in examine(registry)}
    assert found["good"].ok is True
    assert (found["raising"].ok, found["raising"].found) == (False, "the check itself failed: SystemExit: gone")
    assert "must return a CheckResult, not str" in found["vague"].found
    assert "zz_nowhere" in found["plugin seeded"].found
    assert not healthy(list(found.values()))


def test_a_torch_that_cannot_be_imported_is_the_one_finding_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def broken(name: str, *rest, **more):
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    (found,) = examine(Registry(entry_points=[]))
    assert (found.name, found.ok) == ("torch", False)
    assert "libcudart" in found.found
    assert found.fix is not None


def test_an_absent_library_is_no_failure_and_names_what_installs_it() -> None:
    found = library("zz-missing", extra="smell")
    assert (found.ok, found.fix) == (None, 'pip install "modalign[smell]"')


def test_a_library_that_is_too_old_is_told_with_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.registration.discovery._version", lambda name: "1.0")
    found = library("accelerate")
    assert found.ok is False
    assert found.found == "accelerate 1.0 is not >=1.15"
    assert found.fix == 'pip install "accelerate>=1.15"'


def test_an_installed_and_broken_library_is_told_with_its_mend() -> None:
    def attempt() -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    found = library("accelerate", attempt=attempt, fix="pip install it-again")
    assert found.ok is False
    assert "is installed and broken: RuntimeError: operator torchvision::nms does not exist" in found.found
    assert found.fix == "pip install it-again"


@pytest.mark.parametrize(
    ("torch", "package", "command"),
    [
        ("2.14.1", "torchvision", 'pip install --force-reinstall --no-deps "torchvision==0.29.*"'),
        ("2.11.0", "torchvision", 'pip install --force-reinstall --no-deps "torchvision==0.26.*"'),
        ("2.14.1", "torchaudio", 'pip install --force-reinstall --no-deps "torchaudio==2.11.*"'),
        ("2.15.0", "torchaudio", 'pip install "torch<2.15,>=2.11" torchaudio'),
        (
            "2.14.1+cpu",
            "torchvision",
            "pip install --force-reinstall --no-deps --index-url https://download.pytorch.org/whl/cpu "
            '"torchvision==0.29.*"',
        ),
    ],
)
def test_the_mate_of_a_torch_is_the_release_built_for_it(
    torch: str, package: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mates, "version", lambda name: torch)
    assert torch_mate(package, again=True) == command
    assert torch_mate(package) == command.replace("--force-reinstall ", "")


def test_torch_names_its_device() -> None:
    assert " on " in Torch()().found


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, ok in ((5e8, False), (5e9, True), (5e11, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(1e12, 0, int(free)))
        assert Disk()().ok is ok


def test_the_command_exits_with_four_where_something_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finding(ok: bool | None) -> Finding:
        return Finding(name="nose", plugin="smell", distribution="x", ok=ok, found="[stuffed]", fix="pip install nose")

    for ok, code in ((True, 0), (None, 0), (False, 4)):
        monkeypatch.setattr("modalign.cli.doctor.examine", lambda ok=ok: [finding(ok)])
        assert doctor() == code
        assert "[stuffed]" in capsys.readouterr().out
        assert doctor(json=True) == code
        assert json.loads(capsys.readouterr().out) == {
            "ok": ok is not False,
            "findings": [finding(ok).__dict__],
        }


def test_the_list_of_plugins_names_what_each_registers(capsys: pytest.CaptureFixture[str]) -> None:
    plugins(json=True)
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["plugins"]}
    assert listed["core"]["provides"]["objectives"]["dpo"]["target"] == "modalign.objectives.dpo:DPO"
    assert listed["text"]["status"] == "ok"
    plugins()
    out = capsys.readouterr().out
    assert "causal-lm" in out
    assert "simpo" in out


def test_a_failed_plugin_is_listed_with_its_reason(seeded: SimpleNamespace) -> None:
    registry = Registry(entry_points=[])
    with registry.scoped(seeded, name="seeded"):
        registry.checks()
        described = json.loads(json.dumps(describe(registry)))
    (plugin,) = described["plugins"]
    assert plugin["status"] == "failed"
    assert plugin["failures"][0]["code"] == "plugin"
    assert "zz_nowhere" in plugin["failures"][0]["got"]
