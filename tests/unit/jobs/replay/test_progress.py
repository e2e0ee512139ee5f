"""Progress is a bar on a terminal and lines elsewhere; files are replaced atomically."""

import io
from dataclasses import replace
from pathlib import Path

from stream.jobs.replay.progress import ReplayProgress, replace_file, shown_progress

HALF = ReplayProgress(
    sent=60, acked=50, total=100, events_per_s=12_345.6, event_time_ms=1_322_727_960_000, seconds=2
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_is_a_plain_line_every_few_seconds_and_at_the_end() -> None:
    stream = io.StringIO()
    with shown_progress(stream) as show:
        show(HALF)
        show(replace(HALF, acked=51))
        show(replace(HALF, acked=100, done=True))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2, "the second came too soon"
    assert "50%" in lines[0]
    assert "12,346/s" in lines[0]
    assert "2011-12-01 08:26" in lines[0]
    assert "100%" in lines[1]
    assert "\x1b" not in stream.getvalue(), "no colours in a log"


def test_a_terminal_gets_a_bar_with_rate_and_event_time() -> None:
    stream = Terminal()
    with shown_progress(stream) as show:
        show(HALF)

    assert "12,346 events/s" in stream.getvalue()
    assert "2011-12-01 08:26" in stream.getvalue()


def test_a_replaced_file_has_the_newest_content_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    replace_file(path, b"a longer first content")
    replace_file(path, b"second")

    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.json"]
