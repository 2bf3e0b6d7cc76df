"""The house holds: core names no modality and no heavy library, and imports point one way."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted(path for path in (ROOT / "core" / "modalign").rglob("*.py") if "integrations" not in path.parts)
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
MODALITIES = ("image", "audio", "video")
HEAVY = {"transformers", "diffusers", "torchaudio", "torchvision", "torchcodec", "peft", "trl"}
LAZY = {"datasets", "pyarrow", "trackio", "tensorboard", "wandb", "huggingface_hub"}


def _imports(source: str, *, top: bool) -> Iterator[str]:
    """Packages a module imports; with ``top`` only those it imports when it is imported."""
    tree = ast.parse(source)
    nodes = ast.walk(tree)
    if top:
        nodes = (node for statement in tree.body for node in _outside_functions(statement))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_functions(child)


def _words(source: str) -> set[str]:
    """Every word of names, strings and docstrings; comments are left out."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    text = " ".join(token.string for token in tokens if token.type != tokenize.COMMENT)
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_names_no_modality(path: Path) -> None:
    named = {word for word in _words(path.read_text()) for one in MODALITIES if word in (one, f"{one}s")}
    assert not named, f"{path} says {named}; modalities come in by hooks"


def _constants(source: str) -> set[object]:
    return {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_compares_nothing_with_the_name_of_a_modality(path: Path) -> None:
    # the toy model is a double of a language model: rows that are read for one must fit it
    if path.name != "doubles.py":
        assert not _constants(path.read_text()) & {"text", *MODALITIES}


def test_a_modality_that_core_named_would_be_found() -> None:
    source = 'def load(part):\n    """Reads."""\n    return part.modality == "image"\n'
    assert "image" in _words(source)
    assert "image" in _constants(source)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_imports_no_heavy_library_and_no_plugin(path: Path) -> None:
    found = set(_imports(path.read_text(), top=False))
    assert not found & HEAVY
    assert not {name for name in found if name.startswith("modalign_")}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_imports_optional_libraries_only_where_they_are_used(path: Path) -> None:
    assert not set(_imports(path.read_text(), top=True)) & LAZY


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_installed_imports_tests_benchmarks_or_contrib(path: Path) -> None:
    assert not set(_imports(path.read_text(), top=False)) & {"tests", "benchmarks", "contrib", "examples"}


def test_integrations_are_imported_by_plugins_only() -> None:
    assert not [path for path in CORE if "modalign.integrations" in path.read_text()]


def test_a_lazy_import_is_told_from_one_at_the_top() -> None:
    source = "import torch\nif TYPE_CHECKING:\n    import peft\ndef f():\n    import datasets\n"
    assert set(_imports(source, top=True)) == {"torch"}
    assert set(_imports(source, top=False)) == {"torch", "peft", "datasets"}
