"""Reads the settings at the entry point, and explains in one line what is wrong with them."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsConfigDict, SettingsError

from stream.errors import UsageError
from stream.settings.environment import DELIMITER, PREFIX, given_variables, variable
from stream.settings.tree import Settings


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings. `flags` are nested dicts of command-line values.

    Raises UsageError that names the setting and the expected value.
    """
    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: no such file")
    _refuse_unknown(given_variables())

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return Configured(**flags)
    except ValidationError as error:
        raise UsageError(_explained(error)) from None
    except SettingsError:  # only a whole section in one variable is parsed there
        whole = [name for name in given_variables() if DELIMITER not in name]
        raise UsageError(
            f"{' or '.join(whole)} is not a JSON object; set single settings, such as "
            f"{variable('window', 'bucket')}"
        ) from None
    except ValueError as error:
        raise UsageError(f"--config {config}: {error}") from None
    except OSError as error:
        raise UsageError(f"--config {config}: {error.strerror}") from None


def _refuse_unknown(names: Iterable[str]) -> None:
    known = [variable(*path) for path in _paths()]
    unknown = [name for name in names if name.upper() not in known]
    if unknown:
        hint = _hint(unknown[0].upper(), known)
        more = f" (nor are {', '.join(unknown[1:])})" if unknown[1:] else ""
        raise UsageError(f"{unknown[0]} is not a setting{hint}{more}")


def _explained(error: ValidationError) -> str:
    """The first fault, with the setting and its variable, and how many more there are."""
    faults = error.errors(include_input=False, include_url=False)
    first = faults[0]
    path = first["loc"][:2]
    name = ".".join(map(str, path))
    more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = [".".join(known) for known in _paths()]
        return f"{name} is not a setting{_hint(name, known)}{more}"
    if path in {("window",), ("kafka",)}:  # a check of several settings names them
        return f"setting {message}{more}"
    return f"setting {name} ({variable(*path)}): {message}{more}"


def _paths() -> Iterator[tuple[str, ...]]:
    """Every section and setting, as a path in the tree."""
    for name, field in Settings.model_fields.items():
        yield (name,)
        if isinstance(field.default, BaseModel):
            yield from ((name, leaf) for leaf in type(field.default).model_fields)


def _hint(name: str, known: Sequence[str]) -> str:
    """A question after the known name that is most like this one.

    >>> _hint("window.buket", ["window.bucket", "data_dir"])
    '; did you mean window.bucket?'
    """
    squeezed = {_squeezed(one): one for one in known}
    near = get_close_matches(_squeezed(name), squeezed, n=1, cutoff=0.75)
    if near:
        return f"; did you mean {squeezed[near[0]]}?"
    return "; README.md lists all settings"


def _squeezed(name: str) -> str:
    return name.removeprefix(PREFIX).replace("_", "").replace(".", "")
