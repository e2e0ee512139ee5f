"""Policies that a reviewer need not remember: who may import, read, grow and be named how."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from importlinter.cli import lint_imports

from model import errors as model_errors
from model.errors import ModelError
from stream import errors as stream_errors
from stream.errors import SurgecastError
from stream.topics import TOPICS

ROOT = Path(__file__).parents[2]
PACKAGES = ("stream", "model", "dashboards")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 500


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Every dotted name a module uses, with its line: `os.environ`, `pickle.loads`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a module imports, with its line, and whole packages as `import NAME`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def test_imports_go_one_way() -> None:
    """dashboards → stream → model, and the model knows no infrastructure."""
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)

    assert status == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_ships_our_package_names(name: str) -> None:
    """A foreign top-level `stream` would win over an editable install."""
    owners = {
        distribution.name
        for distribution in distributions()
        for file in distribution.files or ()
        if file.parts[0] == name
    }

    assert owners <= {"surgecast"}


def test_a_package_is_never_imported_whole() -> None:
    """`from model.x import Y` keeps locals called model or stream harmless."""
    whole = {f"import {name}" for name in PACKAGES}
    found = [f"{path}:{line}" for path in MODULES for line, name in imports(path) if name in whole]

    assert found == []


def test_only_the_settings_read_the_environment() -> None:
    """Everything else gets its values by argument, so a test can give any."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        for _, name in names(path)
        if name in {"os.environ", "os.getenv", "os.environb"}
    }

    assert readers == {"stream/settings/environment.py"}


def test_nothing_is_unpickled() -> None:
    """A checkpoint or a state file from elsewhere must not be able to run code."""
    modules = {"import pickle", "pickle", "import dill", "import joblib", "import shelve"}
    calls = {"torch.load", "pickle.loads", "pickle.load"}
    found = [
        f"{path}:{line} {name}"
        for path in MODULES
        for line, name in [*imports(path), *names(path)]
        if name in modules | calls
    ]

    assert found == []


@pytest.mark.parametrize(
    ("module", "root"), [(stream_errors, SurgecastError), (model_errors, ModelError)]
)
def test_every_error_tells_the_operator_what_to_do(module: object, root: type[Exception]) -> None:
    """The docstring of each error class has a line that begins with Operator."""
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass)]
    silent = [
        cls.__name__
        for cls in classes
        if issubclass(cls, root)
        and cls.__name__ != "UnreadableEvent"  # the operator meets its record in dead-letter
        and "Operator:" not in (cls.__doc__ or "")
    ]

    assert silent == []
    assert all(cls.__doc__ for cls in classes)


def test_no_module_grows_out_of_sight() -> None:
    """A file of more lines than this is two files."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in [*MODULES, *tests]
    }

    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


def test_the_dashboard_folder_holds_no_importable_helpers() -> None:
    """`bokeh serve` puts the folder first on sys.path: a helper there would shadow a package."""
    found = {path.name for path in (ROOT / "dashboards" / "live").glob("*.py")}

    assert found <= {"main.py", "app_hooks.py"}


def test_compose_and_the_table_agree_on_the_topics() -> None:
    """Compose creates them by our own command, names them all, and lets nothing create others."""
    text = (ROOT / "docker-compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    comment = re.sub(r"\n\s*#", "", text[text.index("# Creates ") : text.index("then ends")])
    named = set(re.findall(r"[a-z][a-z-]+", comment.removeprefix("# Creates "))) - {"and"}

    assert services["topics"]["command"] == ["surgecast", "topics", "create"]
    assert services["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert {topic.name for topic in TOPICS} == named
    for role in ("worker", "api", "dashboard"):
        condition = services[role]["depends_on"]["topics"]["condition"]
        assert condition == "service_completed_successfully"


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    """`surgecast --help` answers at once: torch and its like wait until a command needs them."""
    program = "import sys; from stream.cli import app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert {"torch", "polars", "bokeh", "faust", "kafka", "redis", "numpy"} & set(loaded) == set()
