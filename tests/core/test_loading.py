"""Loading: the loader that claims a path loads it, and what nobody claims is a clear error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from modalign import loading
from modalign.config import ModelConfig
from modalign.errors import ConfigError, ModelError, PluginError
from modalign.hookspecs import hookimpl
from modalign.loading import configure, load
from modalign.registry import Registry
from modalign.roles import Loader
from modalign.testing import toy_model


class Toy(Loader):
    def claims(self, config: ModelConfig) -> bool:
        return (Path(config.path) / "toy.safetensors").exists()

    def load(self, config: ModelConfig):
        return toy_model()


class Greedy(Toy):
    def claims(self, config: ModelConfig) -> bool:
        return True


class Crashing(Toy):
    def claims(self, config: ModelConfig) -> bool:
        raise KeyError("architectures")


Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Registers loaders, by their names in lower case, as the only ones there are."""
    module = ModuleType("modalign_loaders_for_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    registry = Registry(entry_points=[])
    monkeypatch.setattr(loading, "registry", registry)
    with ExitStack() as stack:

        def put(*loaders: type[Loader]) -> None:
            def register_loaders(register) -> None:
                for loader in loaders:
                    setattr(module, loader.__name__, loader)
                    register(loader.__name__.lower(), f"{module.__name__}:{loader.__name__}")

            stack.enter_context(registry.scoped(SimpleNamespace(register_loaders=hookimpl(register_loaders))))

        yield put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_model().save(tmp_path)
    return tmp_path


def test_the_loader_that_claims_a_folder_loads_it(folder: Path, use: Use) -> None:
    use(Toy)
    assert load(folder).shares
    assert load(ModelConfig(path=str(folder)), loader="toy").shares


def test_two_loaders_that_claim_a_folder_are_named(folder: Path, use: Use) -> None:
    use(Toy, Greedy)
    with pytest.raises(ModelError, match=r"more than one loader claims .* found: toy, greedy; .*loader='toy'"):
        load(folder)


def test_a_folder_that_nobody_claims_is_told_with_what_is_in_it(tmp_path: Path, use: Use) -> None:
    use(Toy)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"no loader knows .* loaders: toy; in the folder: notes.txt"):
        load(tmp_path)


def test_a_loader_that_fails_to_answer_is_named(folder: Path, use: Use) -> None:
    use(Toy, Crashing)
    with pytest.raises(PluginError, match=r"the loader 'crashing' of plugin 'scoped' of scoped 0 failed to say"):
        load(folder)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pkl", ".ckpt"])
def test_a_pickle_is_refused_unopened(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ModelError, match="convert the checkpoint to safetensors"):
        load(file)


@pytest.mark.parametrize("path", ["./missing", "/zz/missing", "~/zz/missing", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(path: str) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        load(path)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no setting 'dtyp' of a model; .* did you mean 'dtype'\?"):
        configure("a/b", dtyp="float32")


def test_a_wrong_value_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"dtype: .* found: 'float8'"):
        configure("a/b", dtype="float8")


def test_settings_go_before_those_of_a_config() -> None:
    config = configure(ModelConfig(path="a/b", dtype="float16", revision="main"), dtype="float32")
    assert (config.dtype, config.revision, config.path) == ("float32", "main", "a/b")
