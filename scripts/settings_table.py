"""Write the settings table of README.md, between its two markers, from the settings tree.

python scripts/settings_table.py          # rewrites the table
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stream.settings import Settings, duration_text

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- settings -->", "<!-- /settings -->"
#: Settings in whole milliseconds, shown as durations.
DURATIONS = {
    "session_timeout", "bucket", "allowed_lateness", "idle_timeout", "dedup", "future_tolerance",
    "max_gap", "flush_every", "retention", "publish_every", "every", "max_age", "max_step",
    "cooldown", "max_time", "max_span",
}  # fmt: skip


def table() -> str:
    """Return the settings as a Markdown table: section, names with defaults, purpose."""
    rows = ["| section | name = default | |", "|---|---|---|"]
    plain = []
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            section = type(field.default)
            about = " ".join((section.__doc__ or "").split())
            values = ", ".join(
                _setting(leaf, getattr(field.default, leaf)) for leaf in section.model_fields
            )
            rows.append(f"| `{name}` | {values} | {about} |")
        else:
            plain.append(_setting(name, field.default))
    rows.insert(2, f"| (none) | {', '.join(plain)} | Folder of all files; level of the log. |")
    return "\n".join(rows)


def _setting(name: str, value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return f"`{name}`"
    if name in DURATIONS and isinstance(value, int):
        return f"`{name}={duration_text(value)}`"
    if isinstance(value, tuple):
        return f"`{name}=[{','.join(map(str, value))}]`"
    return f"`{name}={value}`"


def readme_with(text: str, rows: str) -> str:
    """Return the README with its table replaced."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{rows}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme_with(README.read_text(), table()))
