"""The door all plugins come in by: a broken one takes no other down, and its failure says whose it is and its mend."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modalign.errors import MissingExtra, PluginError
from modalign.hookspecs import GROUP, Hooks
from modalign.registration.kinds import KINDS
from modalign.registry import Registry
from modalign.registry import registry as installed

GOOD = """
from modalign import hookimpl

@hookimpl
def register_objectives(register):
    register("{name}", "modalign.objectives.dpo:DPO")
"""

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution on sys.path as an installer would: metadata, and a module of the same name."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def put(
        distribution: str,
        source: str,
        *,
        group: str = GROUP,
        value: str | None = None,
        requires: str = "",
        version: str = "1.2",
        points: str | None = None,
    ) -> str:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{requires}")
        (info / "entry_points.txt").write_text(points or f"[{group}]\n{distribution} = {value or module}\n")
        return distribution

    yield put
    for name in set(sys.modules) - before:
        if name.startswith(("bad_", "good_")):
            del sys.modules[name]


def failure(plugins: Registry, name: str) -> PluginError:
    (record,) = [one for one in plugins.plugins() if one.name == name]
    assert record.entries == ()
    return record.failures[0]


HOOK = "from modalign import hookimpl\n@hookimpl\ndef {hook}({args}):\n    {body}\n"


def hook(body: str, *, name: str = "register_objectives", args: str = "register") -> str:
    return HOOK.format(hook=name, args=args, body=body)


DPO = "modalign.objectives.dpo:DPO"

#: source of the plugin, words its failure says of what is wrong, words that say what to do
BROKEN = {
    "raises-at-import": ("raise RuntimeError('boom')", "RuntimeError: boom", "pip uninstall"),
    "imports-what-is-missing": ("import zz_missing", "No module named 'zz_missing'", "pip install"),
    "ends-the-program": ("raise SystemExit(3)", "SystemExit: 3", "pip uninstall"),
    "has-a-syntax-error": ("def (", "SyntaxError", "pip uninstall"),
    "raises-the-unprintable": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "its message cannot be read",
        "pip uninstall",
    ),
    "warns": ("import warnings\nwarnings.warn('old')", "UserWarning: old", "pip uninstall"),  # warnings are errors here
    "misspells-a-hook": (
        hook("pass", name="register_objctives"),
        "register_objctives",
        "did you mean 'register_objectives'?",
    ),
    "has-a-foreign-hook": (hook("pass", name="on_train_begin"), "hooks of this API: register_", "remove it"),
    "forgets-the-marker": ("def register_heads(register): pass", "a plain function", "@modalign.hookimpl"),
    "asks-for-more": (hook("pass", args="register, config"), "config", "takes one argument"),
    "raises-in-a-hook": (hook("raise KeyError('k')"), "failed in its hook register_objectives", "pip uninstall"),
    "exits-in-a-hook": (hook("raise SystemExit"), "failed in its hook register_objectives", "pip uninstall"),
    "declares-the-unknown": (hook(f"register('x', {DPO!r}, priorty=1)"), "declares 'priorty'", "remove it"),
    "misspells-a-declaration": (
        hook("register('x', 'a:B', priorty=1)", name="register_formats"),
        "declares 'priorty'",
        "did you mean 'priority'?",
    ),
    "forgets-a-declaration": (
        hook("register('x', 'a:B', modality='m')", name="register_decoders"),
        "does not declare 'kind'",
        "kind=...",
    ),
    "declares-nonsense": (
        hook("register('x', 'a:B', modality='m', kind='pixel')", name="register_decoders"),
        "'token', 'draw' or 'step'",
        "correct it",
    ),
    "has-a-bad-target": (hook("register('x', 'no colon')"), "import string 'package.module:Object'", "correct it"),
    "has-a-bad-name": (hook(f"register('a:b', {DPO!r})"), "without spaces or colons", "correct it"),
    "registers-a-class": (hook("register('x', dict)"), "found: <class 'dict'>", "correct it"),
    "registers-twice": (hook(f"register('x', {DPO!r}); register('x', {DPO!r})"), "'x' twice", "rename one"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_with_its_mend_and_the_others_load(kind: str, install: Install) -> None:
    source, found, mend = BROKEN[kind]
    install(f"bad-{kind}", source)
    install("good-one", GOOD.format(name="mine"))
    plugins = Registry()
    assert plugins.objective("mine").__name__ == "DPO"
    assert plugins.objective("dpo").__name__ == "DPO"
    error = failure(plugins, f"bad-{kind}")
    assert f"plugin 'bad-{kind}' of bad-{kind} 1.2" in str(error)
    assert found in str(error)
    assert error.fix is not None
    assert mend in error.fix
    assert error in plugins.failures()


#: what a target is -> words of the error on access
BAD_TARGETS = {
    "zz_nowhere:Thing": "No module named 'zz_nowhere'",
    "modalign.objectives.dpo:Nothing": "has no attribute 'Nothing'",
    "bad_target_exits:Thing": "SystemExit",
    "modalign.heads.linear:LinearHead": "is the class LinearHead",
    "modalign.objectives.dpo:logsigmoid": "is an instance of",
}


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_a_target_that_cannot_be_used_is_an_error_on_access_only(target: str, install: Install, tmp_path: Path) -> None:
    (tmp_path / "bad_target_exits.py").write_text("raise SystemExit(1)")
    install("bad-target", hook(f"register('broken', {target!r}); register('whole', {DPO!r})"))
    plugins = Registry()
    assert "broken" in plugins.entries("objectives")  # nothing has been imported yet
    with pytest.raises(PluginError):
        plugins.objective("broken")
    with pytest.raises(PluginError) as error:  # the second time from memory, with the first as its cause
        plugins.objective("broken")
    assert BAD_TARGETS[target] in str(error.value)
    assert "plugin 'bad-target' of bad-target 1.2" in str(error.value)
    assert 'pip install --upgrade "bad-target"' in str(error.value)
    assert isinstance(error.value.__cause__, PluginError)
    assert plugins.objective("whole").__name__ == "DPO"
    (record,) = [one for one in plugins.plugins() if one.name == "bad-target"]
    assert record.status == "failed"
    assert len(record.failures) == 1


def test_the_cause_of_a_target_that_cannot_be_imported_is_kept(install: Install) -> None:
    install("bad-cause", hook("register('broken', 'zz_nowhere:Thing')"))
    with pytest.raises(PluginError) as error:
        Registry().objective("broken")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    "group", ["modalign.v0", "modalign.v2", "modalign.v10", "modalign", "modalign.plugins", "modalign.V1"]
)
def test_another_api_version_is_refused_without_an_import(group: str, install: Install) -> None:
    install("bad-version", "raise AssertionError('imported')", group=group)
    install("good-one", GOOD.format(name="mine"))
    plugins = Registry()
    error = failure(plugins, "bad-version")
    assert repr(group) in str(error)
    assert "'modalign.v1'" in str(error)
    assert "bad_version" not in sys.modules
    assert plugins.objective("mine")


def test_another_api_version_is_listed_with_the_reason_and_the_mend(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("bad-version", "raise AssertionError('imported')", group="modalign.v2")
    (record,) = [one for one in Registry().plugins() if one.name == "bad-version"]
    assert record.status == "failed"
    (reason,) = record.failures
    assert "plugin 'bad-version' of bad-version 1.2 was written for another plugin API" in reason.what
    assert reason.got == "entry-point group 'modalign.v2'; this modalign has 'modalign.v1'"
    assert reason.fix == 'pip install --upgrade "bad-version" (a version for API v1), or pip uninstall bad-version'
    listed = subprocess.run(
        [sys.executable, "-m", "modalign", "plugins"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(listed.stdout.split())
    assert "bad-version" in said
    assert "was written for another plugin API" in said


def test_a_plugin_for_several_versions_is_here_as_the_one_for_ours(install: Install) -> None:
    points = "[modalign.v1]\nboth = good_both\n[modalign.v2]\nboth = bad_next\nmore = bad_next\n"
    install("good-both", GOOD.format(name="mine"), points=points)
    plugins = Registry()
    assert plugins.objective("mine")
    found = {one.name: one.status for one in plugins.plugins() if not one.own}
    assert (found["both"], found["more"]) == ("ok", "failed")
    assert len([one for one in plugins.plugins() if one.name == "both"]) == 1
    with pytest.raises(PluginError) as error:
        plugins.objective("theirs")
    assert "'both'" not in str(error.value)


EXTRA = "Provides-Extra: more\nRequires-Dist: {wanted}; extra == 'more'\n"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("zz-missing>=2", "zz-missing is missing"),
        ("pluggy>=99", "pluggy 1"),
        ("modalign[none]; python_version>'3'", ""),
    ],
)
def test_a_missing_extra_is_found_before_the_import_and_named_with_pip(
    wanted: str, found: str, install: Install
) -> None:
    requires = EXTRA.format(wanted=wanted) if found else "Provides-Extra: other\n"
    install("bad-extra", "raise AssertionError('imported')", value="bad_extra [more]", requires=requires)
    plugins = Registry()
    error = failure(plugins, "bad-extra")
    assert isinstance(error, MissingExtra)
    assert isinstance(error, ImportError)
    assert (found or "it has no extra 'more'") in str(error)
    assert error.fix == 'pip install "bad-extra[more]"'
    assert "bad_extra" not in sys.modules


def test_an_extra_that_is_installed_lets_its_plugin_in(install: Install) -> None:
    requires = (
        EXTRA.format(wanted="pluggy>=1") + "Requires-Dist: zz-other; extra == 'unasked'\nProvides-Extra: unasked\n"
    )
    install("good-extra", GOOD.format(name="mine"), value="good_extra [more]", requires=requires)
    assert Registry().objective("mine")


def test_an_extra_behind_an_extra_is_checked_too(install: Install) -> None:
    install("good-inner", "", points="[x]\n", requires=EXTRA.format(wanted="zz-missing"))
    install(
        "bad-outer",
        GOOD.format(name="mine"),
        value="bad_outer [more]",
        requires=EXTRA.format(wanted="good-inner[more]"),
    )
    assert "zz-missing is missing" in str(failure(Registry(), "bad-outer"))


@pytest.mark.parametrize("shared", ["", "Requires-Dist: pluggy; extra == 'more'\n"])
def test_a_plugin_whose_extra_nobody_installed_is_absent_and_no_failure(shared: str, install: Install) -> None:
    install("bad-extra", "", value="bad_extra [more]", requires=EXTRA.format(wanted="zz-missing") + shared)
    plugins = Registry()
    (record,) = [one for one in plugins.plugins() if one.name == "bad-extra"]
    assert record.status == "absent"
    assert plugins.failures() == []


def test_asking_for_what_a_failed_plugin_would_have_raises_its_cause(install: Install) -> None:
    install("smell", "", value="smell [more]", requires=EXTRA.format(wanted="zz-missing"))
    plugins = Registry()
    with pytest.raises(MissingExtra) as error:
        plugins.modality("smell")
    assert error.value.__cause__ is failure(plugins, "smell")
    assert 'pip install "smell[more]"' in str(error.value)
    with pytest.raises(MissingExtra):
        plugins.objective("smell:anything")


def test_an_unknown_name_says_what_there_is_what_is_close_and_what_failed(install: Install) -> None:
    install("bad-one", "raise RuntimeError('boom')")
    with pytest.raises(PluginError) as error:
        Registry().objective("dqo")
    message = str(error.value)
    assert "no objective 'dqo'" in message
    assert "registered: sft, dpo, ipo, kto" in message
    assert "did you mean 'dpo'?" in message
    assert "plugin 'bad-one' of bad-one 1.2 cannot be imported (RuntimeError: boom)" in message


def test_a_name_that_two_claim_is_refused_and_the_qualified_ones_work(install: Install) -> None:
    install("good-left", GOOD.format(name="mine"))
    install("good-right", GOOD.format(name="mine").replace("dpo:DPO", "ipo:IPO"))
    plugins = Registry()
    with pytest.raises(PluginError) as error:
        plugins.objective("mine")
    for words in ("'good-left:mine' by plugin 'good-left' of good-left 1.2", "'good-right:mine'", "qualified name"):
        assert words in str(error.value)
    assert plugins.objective("good-left:mine").__name__ == "DPO"
    assert plugins.objective("good_right:mine").__name__ == "IPO"  # a distribution's name is normalised as pip does
    assert {"good-left:mine", "good-right:mine"} < set(plugins.entries("objectives"))
    assert "mine" not in plugins.entries("objectives")


def test_our_names_are_never_shadowed(install: Install) -> None:
    install("good-shadow", GOOD.format(name="dpo").replace("dpo:DPO", "ipo:IPO"))
    plugins = Registry()
    assert plugins.objective("dpo").__name__ == "DPO"
    assert plugins.objective("modalign:dpo").__name__ == "DPO"
    assert plugins.objective("good-shadow:dpo").__name__ == "IPO"
    assert {"dpo", "good-shadow:dpo"} < set(plugins.entries("objectives"))


def test_two_plugins_of_one_distribution_may_not_share_a_name(install: Install, tmp_path: Path) -> None:
    install("good-double", GOOD.format(name="mine"), points=f"[{GROUP}]\na = good_double\nb = good_double_b\n")
    (tmp_path / "good_double_b.py").write_text(GOOD.format(name="mine"))
    plugins = Registry()
    assert plugins.objective("mine")
    assert "a second time" in str(failure(plugins, "b"))


def test_another_plugin_runs_only_when_ours_do_not_have_the_name(install: Install) -> None:
    install("good-lazy", GOOD.format(name="mine"))
    plugins = Registry()
    plugins.objective("dpo")
    assert "good_lazy" not in sys.modules
    plugins.objective("mine")
    assert "good_lazy" in sys.modules


def test_what_a_plugin_prints_does_not_reach_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("good-noise", "print('hello')\n" + GOOD.format(name="mine") + "    print('again')\n")
    assert Registry().objective("mine")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "hello\nagain\n"


def test_an_interrupt_is_no_failure_of_a_plugin(install: Install) -> None:
    install("bad-interrupt", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().plugins()


def test_metadata_that_cannot_be_read_stops_nothing(install: Install, tmp_path: Path) -> None:
    for number, junk in enumerate((b"\xff\xfe\x00", b"[modalign.v1\n===", b"[modalign.v1]\n= \n")):
        info = tmp_path / f"junk{number}-1.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_bytes(junk)
    install("good-one", GOOD.format(name="mine"))
    assert Registry().objective("mine")


def test_the_first_copy_of_a_distribution_on_the_path_wins(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("good-copy", GOOD.format(name="mine"), version="2.0")
    older = tmp_path / "older" / "good_copy-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: Good_Copy\nVersion: 1.0\n")
    (older / "entry_points.txt").write_text(f"[{GROUP}]\nold = zz_nowhere\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.parent)])
    found = [(one.name, one.version) for one in Registry().plugins() if not one.own]
    assert found == [("good-copy", "2.0")]


def test_one_broken_format_is_left_out_with_a_warning(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("bad-format", hook("register('broken', 'zz_nowhere:Thing')", name="register_checks"))
    plugins = Registry()
    with caplog.at_level(logging.WARNING, logger="modalign"):
        assert "broken" not in plugins.checks()
        assert "python" in plugins.checks()
    assert (
        caplog.text.count("zz_nowhere") == 2
    )  # one warning, with the target and the reason; the second call is silent


def test_formats_come_by_priority(install: Install, tmp_path: Path) -> None:
    (tmp_path / "good_rows.py").write_text(
        "from modalign.roles import Format\nclass Rows(Format):\n"
        "    def claims(self, columns, row): return False\n"
        "    def comparison(self, row, origin, *, root): raise KeyError\n"
    )
    body = "register('low', 'good_rows:Rows', priority=-1000); register('top', 'good_rows:Rows', priority=1000)"
    install("good-formats", hook(body, name="register_formats"))
    names = list(Registry().formats())
    assert (names[0], names[-1]) == ("top", "low")


def test_a_scoped_plugin_is_gone_afterwards() -> None:
    plugins = Registry()

    class Plugin:
        from modalign.hookspecs import hookimpl

        @hookimpl
        def register_objectives(self, register) -> None:
            register("mine", DPO)

    with plugins.scoped(Plugin(), name="toy"):
        assert plugins.objective("mine").__name__ == "DPO"
    with pytest.raises(PluginError, match="no objective 'mine'"):
        plugins.objective("mine")


def test_every_hook_has_a_kind_and_every_kind_a_hook() -> None:
    assert {name.removeprefix("register_") for name in vars(Hooks) if name.startswith("register_")} == set(KINDS)


def test_our_own_plugins_load() -> None:
    ours = [one for one in installed.plugins() if one.own]
    assert {one.name for one in ours} == {"core", "text", "image", "audio", "video"}
    assert [failure for one in ours for failure in one.failures] == []
    assert all(one.entries for one in ours)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(PluginError, match="no kind 'smells'"):
        installed.entries("smells")


def python(code: str, *path: Path) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_and_listing_import_nothing_heavy() -> None:
    heavy = "torch transformers peft accelerate numpy PIL soundfile av torchaudio torchvision diffusers datasets"
    code = f"""
import sys
import modalign, modalign.registry, modalign.pytest_plugin
assert not any(name.startswith("modalign_") for name in sys.modules), "import modalign loaded a plugin"
from modalign.cli.plugins import describe
import json
print(json.dumps(describe(modalign.registry.registry)))
assert not set({heavy.split()!r}) & set(sys.modules), set({heavy.split()!r}) & set(sys.modules)
"""
    described = json.loads(python(code))
    assert described["api"] == "v1"
    assert {one["name"] for one in described["plugins"]} >= {"core", "text", "image", "audio", "video"}


def test_an_installation_without_metadata_says_so() -> None:
    with pytest.raises(PluginError, match="not installed as a distribution"):
        Registry(entry_points=[]).objective("dpo")


DEPICTION = """
from modalign.roles import Depiction
class Mine(Depiction):
    modality, attributes = "{modality}", frozenset()
    def depict(self, concept, *, seed=0): raise NotImplementedError
    def read(self, part): return None
"""


def depicts(install: Install, tmp_path: Path, name: str, modality: str) -> None:
    (tmp_path / f"{name.replace('-', '_')}_world.py").write_text(DEPICTION.format(modality=modality))
    target = f"{name.replace('-', '_')}_world:Mine"
    install(name, hook(f"register('mine', {target!r}, modality={modality!r})", name="register_depictions"))


def test_another_depiction_of_a_modality_never_takes_the_place_of_ours(install: Install, tmp_path: Path) -> None:
    depicts(install, tmp_path, "good-world", "text")
    plugins = Registry()
    assert type(plugins.depiction("text")).__name__ == "Sentence"
    assert "good_world" not in sys.modules
    assert type(plugins.depictions()["text"]).__name__ == "Sentence"
    assert type(plugins.depiction("good-world:mine")).__name__ == "Mine"


def test_a_modality_that_two_others_depict_is_contested(install: Install, tmp_path: Path) -> None:
    depicts(install, tmp_path, "good-one", "smell")
    depicts(install, tmp_path, "good-two", "smell")
    plugins = Registry()
    assert "smell" not in plugins.depictions()
    with pytest.raises(PluginError, match=r"'good-one:mine' by .*'good-two:mine' by"):
        plugins.depiction("smell")


def test_what_a_target_prints_does_not_reach_stdout(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good_noisy_check.py").write_text(
        "print('imported')\nfrom modalign.roles import Check\nclass Mine(Check):\n"
        "    def __init__(self): print('made')\n    def __call__(self): raise NotImplementedError\n"
    )
    install("good-noisy", hook("register('mine', 'good_noisy_check:Mine')", name="register_checks"))
    assert "mine" in Registry().checks()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "imported\nmade\n")


def test_a_thing_that_exits_when_it_is_made_is_left_out(install: Install, tmp_path: Path) -> None:
    (tmp_path / "good_exit_check.py").write_text(
        "from modalign.roles import Check\nclass Mine(Check):\n"
        "    def __init__(self): raise SystemExit(0)\n    def __call__(self): raise NotImplementedError\n"
    )
    install("good-exit", hook("register('mine', 'good_exit_check:Mine')", name="register_checks"))
    plugins = Registry()
    assert "python" in plugins.checks()
    assert "SystemExit" in str(plugins.failures()[0])


def test_every_missing_declaration_is_named_at_once(install: Install) -> None:
    install("bad-decoder", hook("register('x', 'a:B')", name="register_decoders"))
    error = failure(Registry(), "bad-decoder")
    assert "does not declare 'kind' and 'modality'" in str(error)
    assert error.fix == "register('x', 'a:B', kind=..., modality=...)"


def test_a_distribution_without_a_version_has_version_0(install: Install, tmp_path: Path) -> None:
    install("good-plain", GOOD.format(name="mine"))
    (tmp_path / "good_plain-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: good-plain\n")
    assert [one.version for one in Registry().plugins() if not one.own] == ["0"]


def test_a_second_scoped_plugin_of_one_name_is_refused_and_the_first_stays() -> None:
    plugins = Registry()
    with plugins.scoped(object(), name="toy"):
        with pytest.raises(PluginError, match="is there already"), plugins.scoped(object(), name="toy"):
            pass
        assert "toy" in [one.name for one in plugins.plugins()]
