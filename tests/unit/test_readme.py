"""The README says what the code does: its settings, its commands, its links."""

import re
import runpy
from pathlib import Path

import pytest

from stream.cli.entry import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_in_step() -> None:
    """`python scripts/settings_table.py` would change nothing."""
    script = runpy.run_path(str(ROOT / "scripts" / "settings_table.py"))

    assert script["readme_with"](README, script["table"]()) == README


def test_every_command_it_names_exists() -> None:
    """A person can type each `surgecast …` of the text."""
    known = {
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    }
    known |= {group.name or "" for group in app.registered_groups}
    named = set(re.findall(r"(?m)(?:^|`|bin/)surgecast ([a-z-]+)", README))

    assert named
    assert named <= known


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_every_link_leads_to_a_file(target: str) -> None:
    """Links and pictures of the README are in the repository."""
    assert (ROOT / target).is_file()
