"""What no file of modalign does: read pickles, run text as code, unpack archives, start shells, trust remote code.

Read from the syntax of every source file; there is no list of exceptions. What a name means is followed through
imports (`import torch as t; t.load` and `from torch import load as read` are both `torch.load`).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "plugins")

MODULES = frozenset(
    {
        *("pickle", "_pickle", "cPickle", "pickle5", "cloudpickle", "dill", "joblib", "shelve", "marshal"),
        *("jsonpickle", "diskcache", "hickle"),
    }
)
CALLS = frozenset(
    {
        *("eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"),
        *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
        *("torch.load", "torch.save", "torch.jit.load", "torch.export.load", "torch.hub.load", "torch.package"),
        *("torch.serialization.load", "torch.serialization.save", "torch.utils.cpp_extension.load"),
        *(
            "yaml.load",
            "yaml.load_all",
            "yaml.full_load",
            "yaml.full_load_all",
            "yaml.unsafe_load",
            "yaml.unsafe_load_all",
        ),
        *("jinja2.Environment", "jinja2.environment.Environment", "jinja2.NativeEnvironment"),
        *("jinja2.nativetypes.NativeEnvironment", "pandas.read_pickle", "shutil.unpack_archive"),
    }
)
# A template that a sandbox has made may be named as a type; only making one from text is outside any sandbox.
CONSTRUCTORS = frozenset({"jinja2.Template", "jinja2.environment.Template"})
# Collectives that pickle what they send, of torch.distributed and of accelerate.
OBJECT_COLLECTIVES = frozenset(
    {
        *("all_gather_object", "gather_object", "broadcast_object_list"),
        *("scatter_object_list", "send_object_list", "recv_object_list"),
    }
)


def findings(source: str, name: str = "snippet.py") -> list[str]:
    """What a source file does that it must not, as `file:line: what`."""
    tree = ast.parse(source, name)
    names = _imports(tree)
    return [f"{name}:{line}: {what}" for node in ast.walk(tree) for line, what in _judge(node, names)]


def _imports(tree: ast.AST) -> dict[str, str]:
    """What local names stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _full(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted name of an expression, with imports followed; `?` stands for what is no import."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        known = not isinstance(node.value, ast.Name) or node.value.id in names  # a variable may be called `yaml` too
        return f"{_full(node.value, names) if known else '?'}.{node.attr}"
    return "?"


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _judge(node: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import():
            for alias in node.names:
                if alias.name.split(".")[0] in MODULES:
                    yield node.lineno, f"imports {alias.name}"
        case ast.ImportFrom(module=str(module), level=0):
            if module.split(".")[0] in MODULES:
                yield node.lineno, f"imports from {module}"
            for alias in node.names:
                full = f"{module}.{alias.name}"
                if full in CALLS or alias.name in OBJECT_COLLECTIVES:
                    yield node.lineno, f"imports {full}"
        case ast.Name() | ast.Attribute():
            full = _full(node, names)
            last = full.rpartition(".")[2]
            if full in CALLS or (isinstance(node, ast.Attribute) and last in OBJECT_COLLECTIVES | {"extractall"}):
                yield node.lineno, f"uses {full}"
        case ast.Call():
            yield from _judge_call(node, names)
        case ast.Dict():
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and _is(value, True):
                    yield node.lineno, "trusts remote code"
        case ast.AnnAssign() | ast.Assign() if _is(node.value, True):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_full(target, {}).rpartition(".")[2] == "trust_remote_code" for target in targets):
                yield node.lineno, "trusts remote code"
        case ast.arguments():
            positional = node.posonlyargs + node.args
            defaults = [*zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True)]
            for argument, default in [*defaults, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
                if argument.arg == "trust_remote_code" and _is(default, True):
                    yield argument.lineno, "trusts remote code"


def _judge_call(node: ast.Call, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    full = _full(node.func, names)
    first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    if full in ("__import__", "importlib.import_module", "builtins.__import__") and str(first).split(".")[0] in MODULES:
        yield node.lineno, f"imports {first}"
    if full in CONSTRUCTORS:
        yield node.lineno, f"makes a {full}"
    if full == "getattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        indirect = f"{_full(node.args[0], names)}.{node.args[1].value}"
        if indirect in CALLS or node.args[1].value in OBJECT_COLLECTIVES | {"extractall"}:
            yield node.lineno, f"uses {indirect}"
    for keyword in node.keywords:
        if keyword.arg in ("shell", "allow_pickle") and not _is(keyword.value, False):
            yield node.lineno, f"passes {keyword.arg}"
        if keyword.arg == "trust_remote_code" and _is(keyword.value, True):
            yield node.lineno, "trusts remote code"
        if keyword.arg == "typ" and full.endswith("YAML") and not _is_safe(keyword.value):
            yield node.lineno, "reads YAML that can make objects"


def _is_safe(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in ("safe", "rt")


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_every_source_file_is_read():
    found = sources()
    assert {path.relative_to(ROOT).parts[0] for path in found} == set(FOLDERS)
    assert ROOT / "core" / "modalign" / "training" / "storage" / "checkpoint.py" in found
    hidden = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py[wx]*")]
    assert [path for path in hidden if path.suffix != ".pyc"] == []


def test_no_source_file_does_what_is_forbidden():
    wrong = [one for path in sources() for one in findings(path.read_text("utf-8"), str(path.relative_to(ROOT)))]
    assert wrong == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_an_import_of_a_forbidden_module_is_found(module):
    for line in (
        f"import {module}",
        f"import {module} as json",
        f"import os, {module}.x",
        f"from {module} import loads",
        f"def f():\n    import {module}",
        f"__import__('{module}')",
        f"import importlib\nimportlib.import_module('{module}')",
        f"from importlib import import_module as get\nget('{module}.x')",
    ):
        assert findings(line), line


@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_forbidden_call_is_found_however_it_is_imported(call):
    module, _, name = call.rpartition(".")
    ways = (
        [f"{call}(x)"]
        if not module
        else [
            f"import {module}\n{call}(x)",
            f"import {module} as m\nm.{name}(x)",
            f"from {module} import {name}",
            f"from {module} import {name} as innocent\ninnocent(x)",
            f"import {module} as m\nread = m.{name}\nread(x)",
            f"import {module} as m\ngetattr(m, '{name}')(x)",
        ]
    )
    for source in ways:
        assert findings(source), source


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(x, shell=True)",
        "from subprocess import Popen\nPopen(x, shell=flag)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=flag)",
        "import tarfile\ntarfile.open(x).extractall(y)",
        "import zipfile\nwith zipfile.ZipFile(x) as z:\n    z.extractall()",
        "archive.extractall()",
        "getattr(archive, 'extractall')()",
        "load(x, trust_remote_code=True)",
        "load(x, **{'trust_remote_code': True})",
        "def f(x, trust_remote_code=True): ...",
        "def f(*, trust_remote_code: bool = True): ...",
        "class C:\n    trust_remote_code: bool = True",
        "config.trust_remote_code = True",
        "from ruamel.yaml import YAML\nYAML(typ='unsafe')",
        "from jinja2 import Template\nTemplate(x)",
        "import jinja2 as j\nj.Template(x)",
        "import torch.distributed as dist\ndist.all_gather_object(x, y)",
        "from accelerate.utils import gather_object",
        "from torch.distributed import broadcast_object_list as cast",
    ],
)
def test_a_forbidden_argument_or_method_is_found(source):
    assert findings(source), source


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile(x)",
        "torch.compile(model)",
        "import numpy as np\nnp.load(x)\nnp.load(x, allow_pickle=False)",
        "import subprocess\nsubprocess.run([x], shell=False)",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment\nImmutableSandboxedEnvironment()",
        "from jinja2 import Template\ndef f(sandbox) -> Template: ...",
        "from ruamel.yaml import YAML\nyaml = YAML(typ='safe')\nyaml.load(x)",
        "load(x, trust_remote_code=config.trust_remote_code)",
        "trust_remote_code: bool = False",
        "from safetensors.torch import load_file\nload_file(x)",
        "'pickle.loads and torch.load in words'",
        "import json\njson.load(x)",
    ],
)
def test_harmless_code_is_left_alone(source):
    assert findings(source) == []
