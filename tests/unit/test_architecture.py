"""Policies that tests keep: imports, folders, sizes, durations, errors, topics."""

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from importlinter.cli import lint_imports

from model import errors as model_errors
from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.errors import ModelError
from stream import errors as stream_errors
from stream.errors import SurgecastError
from stream.topics import TOPICS
from tests.support.paths import ROOT
from tests.support.services import SERVICE_FIXTURES

PACKAGES = ("stream", "model", "dashboards")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
#: A longer file is two files.
MAX_LINES, MAX_TEST_LINES = 300, 500
#: A package with more modules is two packages.
MAX_MODULES = 12
#: `ls stream` fits on a screen.
MAX_FOLDERS, MAX_FILES = 20, 8
MAX_COLUMNS = 120
DURATIONS_MS = {"HOUR_MS": HOUR_MS, "DAY_MS": DAY_MS, "WEEK_MS": WEEK_MS}


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
    """dashboards → stream → model, and the model imports no infrastructure."""
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
    """All other modules take their values as arguments, so that a test can choose them."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        for _, name in names(path)
        if name in {"os.environ", "os.getenv", "os.environb"}
    }

    assert readers == {"stream/settings/environment.py"}


def test_nothing_is_unpickled() -> None:
    """A checkpoint or a state file from elsewhere must not run code."""
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
def test_every_error_says_what_the_operator_does(module: object, root: type[Exception]) -> None:
    """The docstring of each error class has a line `Operator: …`."""
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass)]
    silent = [
        cls.__name__
        for cls in classes
        if issubclass(cls, root)
        and cls.__name__ != "UnreadableEvent"  # its record is in the topic dead-letter
        and "Operator:" not in (cls.__doc__ or "")
    ]

    assert silent == []
    assert all(cls.__doc__ for cls in classes)


@pytest.mark.parametrize(
    ("files", "limit"), [(MODULES, MAX_LINES), (TESTS, MAX_TEST_LINES)], ids=["product", "tests"]
)
def test_no_module_is_too_long(files: list[Path], limit: int) -> None:
    """At most 300 lines, and 500 in tests."""
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files
    }

    assert {path: lines for path, lines in sizes.items() if lines > limit} == {}


def test_no_package_has_too_many_modules() -> None:
    """At most 12, without `__init__.py`."""
    sizes = Counter(path.parent for path in MODULES if path.name != "__init__.py")

    assert {folder: size for folder, size in sizes.items() if size > MAX_MODULES} == {}


def test_stream_fits_on_a_screen() -> None:
    """At most 20 folders and 8 files."""
    entries = [path for path in (ROOT / "stream").iterdir() if path.name != "__pycache__"]
    folders = [path for path in entries if path.is_dir()]

    assert len(folders) <= MAX_FOLDERS
    assert len(entries) - len(folders) <= MAX_FILES


def test_durations_are_defined_in_one_place() -> None:
    """Hours, days and weeks in milliseconds come from `model/durations.py`."""
    literals = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.value}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and node.value in DURATIONS_MS.values()
    ]
    defined = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name.id}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for name in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(name, ast.Name) and name.id.strip("_") in {"MINUTE_MS", *DURATIONS_MS}
    ]

    assert literals == []
    assert {place.partition(":")[0] for place in defined} == {"model/durations.py"}


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name
)
def test_lines_of_documents_are_readable(path: Path) -> None:
    """At most 120 characters, tables excepted."""
    lines = enumerate(path.read_text().splitlines(), 1)

    assert [n for n, line in lines if len(line) > MAX_COLUMNS and line.lstrip()[0] != "|"] == []


def test_tests_without_services_start_none() -> None:
    """`tests/conftest.py` refuses fixtures that are parameters; this covers the other ways."""
    requests = {f'getfixturevalue("{name}")' for name in SERVICE_FIXTURES}
    starts = requests | {"embedded_broker(", "embedded_store(", "running_broker(", "WorkerProcess("}
    folders = ("unit", "property", "golden")
    found = [
        f"{path.relative_to(ROOT)}: {start}"
        for folder in folders
        for path in (ROOT / "tests" / folder).rglob("*.py")
        if path != Path(__file__)
        for start in starts
        if start in path.read_text()
    ]

    assert found == []


def test_the_dashboard_folder_has_no_importable_helpers() -> None:
    """`bokeh serve` puts the folder first on sys.path: a helper there would shadow a package."""
    found = {path.name for path in (ROOT / "dashboards" / "live").glob("*.py")}

    assert found <= {"main.py", "app_hooks.py"}


def test_compose_and_the_table_agree_on_the_topics() -> None:
    """Compose creates them by our command, names all of them, and allows no others."""
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
    """`surgecast --help` answers at once: a command imports torch and its like when it runs."""
    program = "import sys; from stream.cli import app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert {"torch", "polars", "bokeh", "faust", "kafka", "redis", "numpy"} & set(loaded) == set()


def test_the_architecture_names_files_that_exist() -> None:
    """Its table of places is right after every rename."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_/]+\.py|[a-z_]+(?:/[a-z_]+)*/)`", text))
    files = [path.relative_to(ROOT).as_posix() for path in MODULES]
    folders = {f"{Path(path).parent.as_posix()}/" for path in files}
    known = [f"/{path}" for path in [*files, *folders, "model/", "stream/", "dashboards/"]]

    assert len(named) > 40
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in known)} == set()
