"""The command line: help, one-line errors, exit status, and `up` with all its roles."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil
import pytest

from stream.jobs.files.sample import REPLAY_START_MS, sample_orders
from stream.topics import TOPICS
from tests.support.services import TestBroker, runs

COMMANDS = (
    "up", "replay", "simulate", "backfill", "sample-path", "worker", "api", "dashboard", "doctor",
    "trainer", "train", "backtest", "forecast",
    "topics create", "topics describe",
    "models list", "models show", "models promote", "models rollback",
)  # fmt: skip


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without settings of the product and without Apache Kafka."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SURGECAST_") and name != "KAFKA_HOME"
    }
    return kept | {"COLUMNS": "100"} | values


def surgecast(
    *arguments: str, environment: dict[str, str] | None = None, timeout_s: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=clean_environment(**(environment or {})),
    )


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Two thousand real order lines from the start of the demonstration."""
    lines = pl.read_parquet(sample_orders()).filter(pl.col("ts") >= REPLAY_START_MS)
    path = tmp_path / "orders.parquet"
    lines.head(2_000).write_parquet(path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(command: str) -> None:
    """`--help` succeeds and has a command line to copy."""
    answer = surgecast(*command.split(), "--help")

    assert answer.returncode == 0
    assert "Example:" in answer.stdout
    assert f"surgecast {command}" in " ".join(answer.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("topics", "creat"), "No such command 'creat'"),
        (("topics", "create", "--partitions", "many"), "--partitions"),
        (("replay",), "Missing argument"),
        (("up", "--sped", "3"), "No such option"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...], expected: str) -> None:
    """The error names the argument that was not understood."""
    answer = surgecast(*arguments)

    assert answer.returncode == 2
    assert expected in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("topics", "create"), {}, "no broker named: set SURGECAST_KAFKA__BOOTSTRAP_SERVERS"),
        (("worker",), {}, "no store named: set SURGECAST_REDIS__URL"),
        (("doctor",), {"SURGECAST_KAFKA__PARTITIONS": "x"}, "SURGECAST_KAFKA__PARTITIONS"),
        (("--config", "nowhere.toml", "doctor"), {}, "nowhere.toml: no such file"),
        (("up", "--replay", "nowhere.parquet"), {}, "nowhere.parquet: no such file"),
        (("up", "--replay", "sample", "--speed", "fast"), {}, "--speed fast"),
        (("up", "--until-end"), {}, "need --replay"),
        (("models", "show", "nobody"), {}, "holds no model nobody"),
        (
            ("topics", "describe"),
            {"SURGECAST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"},
            "broker 127.0.0.1:1 does not answer",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    arguments: tuple[str, ...], environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    """The error on stderr has no traceback."""
    answer = surgecast("--data-dir", str(tmp_path), *arguments, environment=environment)

    assert answer.returncode == 1
    assert expected in answer.stderr
    assert answer.stderr.startswith("surgecast: ")
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_csv_with_wrong_columns_names_the_expected_ones(
    broker: TestBroker, tmp_path: Path
) -> None:
    """The line names the missing columns."""
    path = tmp_path / "orders.csv"
    path.write_text("when,what\n2011-09-05T08:00:00Z,85123A\n")
    environment = {"SURGECAST_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    answer = surgecast("replay", str(path), environment=environment)

    assert answer.returncode == 1
    assert "no column ts, sku, quantity, unit_price" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("role", ["api", "dashboard"])
def test_a_taken_port_is_named_with_its_setting(role: str, tmp_path: Path) -> None:
    """`up` checks ports before it starts anything, and names the setting of the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        setting = f"SURGECAST_{role.upper()}__PORT"
        answer = surgecast("--data-dir", str(tmp_path), "up", environment={setting: port})

    assert answer.returncode == 1
    assert f"127.0.0.1:{port}" in answer.stderr
    assert setting in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_topics_are_created_once_and_described(broker: TestBroker) -> None:
    """`topics describe` lists every topic and finds no fault."""
    environment = {"SURGECAST_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    created = surgecast("topics", "create", "--json", environment=environment)
    described = surgecast("topics", "describe", "--json", environment=environment)
    topics = json.loads(described.stdout)["topics"]

    assert json.loads(created.stdout)["created"] == []
    assert [topic["name"] for topic in topics] == [topic.name for topic in TOPICS]
    assert {topic["partitions"] for topic in topics} == {4}
    assert described.returncode == 0


def test_doctor_reports_faults_and_fails(
    broker: TestBroker, valkey_url: str, tmp_path: Path
) -> None:
    """No fault with a broker and a store; a wrong number of partitions makes it exit 1."""
    environment = {
        "SURGECAST_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "SURGECAST_REDIS__URL": valkey_url,
        "SURGECAST_DATA_DIR": str(tmp_path),
    }
    well = surgecast("doctor", "--json", environment=environment)
    ill = surgecast(
        "doctor", "--json", environment=environment | {"SURGECAST_KAFKA__PARTITIONS": "3"}
    )
    status = {check["name"]: check["status"] for check in json.loads(well.stdout)["checks"]}
    faults = {check["name"]: check for check in json.loads(ill.stdout)["checks"]}

    assert well.returncode == 0, well.stdout
    assert status["topics"] == status["store"] == status["clock"] == status["packages"] == "ok"
    assert ill.returncode == 1
    assert faults["topics"]["status"] == "wrong"
    assert "SURGECAST_KAFKA__PARTITIONS" in faults["topics"]["advice"]


def test_up_counts_a_replay_to_its_end(orders: Path, tmp_path: Path, no_process_left: None) -> None:
    """One JSON object on stdout: every line counted, every series forecast; no process left."""
    answer = surgecast(
        "--data-dir", str(tmp_path / "var"), "up", "--replay", str(orders), "--speed", "max",
        "--until-end", "--json",
        environment={"SURGECAST_API__PORT": "0", "SURGECAST_DASHBOARD__PORT": "0"}, timeout_s=240,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    summary = json.loads(answer.stdout)
    lines = pl.read_parquet(orders)

    assert summary["events_in"] == lines.height
    assert summary["counted"] == lines.height - summary["duplicate"] - summary["dead_lettered"]
    assert summary["series"] == lines["sku"].n_unique() + 1  # and the total
    assert summary["forecasts"] >= summary["series"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_every_role(
    number: signal.Signals, orders: Path, tmp_path: Path, no_process_left: None
) -> None:
    """SIGTERM and Ctrl-C stop every child; the exit status is 0."""
    with started_up(tmp_path / "var", "--replay", str(orders), "--speed", "60") as running:
        children = wait_for_roles(running, "worker", "dashboard", "api", "replay")
        running.send_signal(number)

        assert running.wait(60) == 0
    assert [child.pid for child in children if runs(child)] == []


def test_a_child_that_dies_ends_the_run_and_is_named(tmp_path: Path, no_process_left: None) -> None:
    """`kill -9` of the worker: exit 1, its name and log on stderr, no process left."""
    with started_up(tmp_path / "var") as running:
        worker, *_ = wait_for_roles(running, "worker", "dashboard", "api")
        worker.kill()
        _, stderr = running.communicate(timeout=60)

    assert running.returncode == 1
    assert "worker (pid" in stderr
    assert "SIGKILL" in stderr
    assert "worker.log" in stderr
    assert "Traceback" not in stderr


@contextmanager
def started_up(data_dir: Path, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A running `surgecast up`; killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "stream.cli", "--data-dir", str(data_dir), "up", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(SURGECAST_API__PORT="0", SURGECAST_DASHBOARD__PORT="0"),
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_for_roles(
    running: "subprocess.Popen[str]", *roles: str, timeout_s: float = 90
) -> list[psutil.Process]:
    """The child processes of these roles, once all of them run."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = {
            child.cmdline()[4]: child
            for child in psutil.Process(running.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE and len(child.cmdline()) > 4
        }
        if set(roles) <= set(found):
            return [found[role] for role in roles]
        assert time.monotonic() < deadline, f"only {sorted(found)} of {roles} run"
        time.sleep(0.1)
