"""Logs are one JSON object per line except on a terminal, and never on stdout."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from stream.telemetry import configure_logging


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("kafka", "faust", "mode")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def test_a_record_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Event, level, logger, time and fields are keys; stdout is for a command's output."""
    out = io.StringIO()
    configure_logging("info", stream=out)
    structlog.get_logger("stream.ingest.pipeline").warning("partition_lost", partition=3)
    line = json.loads(out.getvalue())

    assert line["event"] == "partition_lost"
    assert (line["level"], line["logger"], line["partition"]) == (
        "warning",
        "stream.ingest.pipeline",
        3,
    )
    assert line["timestamp"].endswith("Z")
    assert capsys.readouterr().out == ""


def test_an_exception_is_part_of_its_line() -> None:
    """A traceback does not break the one-object-a-line rule."""
    out = io.StringIO()
    configure_logging("info", stream=out)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("somewhere").exception("it failed")
    line = json.loads(out.getvalue())

    assert "ValueError: broken" in line["exception"]


def test_libraries_are_quiet_and_the_level_applies() -> None:
    """Neither our records below the level nor a library's warnings are written."""
    out = io.StringIO()
    configure_logging("info", stream=out)
    structlog.get_logger("stream.serving.model_server").debug("detail")
    logging.getLogger("kafka.client").warning("reconnecting")

    assert out.getvalue() == ""


def test_a_terminal_gets_readable_lines() -> None:
    """Pretty output is not JSON and contains the event and its fields.

    The logger is none that Faust's app silences, which other tests build.
    """
    out = io.StringIO()
    configure_logging("info", stream=out, pretty=True)
    structlog.get_logger("stream.serving.model_server").info("model_swapped", model_id="lstm-1")

    assert "model_swapped" in out.getvalue()
    assert "lstm-1" in out.getvalue()
    assert not out.getvalue().startswith("{")
