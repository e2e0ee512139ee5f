"""The README agrees with the code: settings, commands, links."""

import re
import runpy

import pytest

from stream.cli.entry import app
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_up_to_date() -> None:
    """`python scripts/settings_table.py` would change nothing."""
    script = runpy.run_path(str(ROOT / "scripts" / "settings_table.py"))

    assert script["readme_with"](README, script["table"]()) == README


def test_every_command_in_it_exists() -> None:
    """Every `surgecast …` of the text is a command."""
    known = {
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    }
    known |= {group.name or "" for group in app.registered_groups}
    named = set(re.findall(r"(?m)(?:^|`|bin/)surgecast ([a-z-]+)", README))

    assert named
    assert named <= known


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_every_link_has_a_file(target: str) -> None:
    """Links and pictures of the README are in the repository."""
    assert (ROOT / target).is_file()
