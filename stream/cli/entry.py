"""Entry point of the command line `surgecast`: global options, exit status, error output.

Commands import heavy libraries inside their functions, so that `--help` stays fast.

Exit status: 0 done, 1 a failure explained on stderr, 2 wrong usage. A SurgecastError prints one
line, never a traceback; any other exception is a bug and keeps its traceback.
"""

import errno
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from model.errors import ModelError
from stream.cli import archive, batch, bench, events, models, ops, roles
from stream.cli.context import Globals
from stream.errors import SurgecastError

app = typer.Typer(
    name="surgecast",
    help="Forecast demand from streams of orders and clicks.\n\n"
    "Start here:  surgecast up --replay sample --speed 3600\n\n"
    "Any setting can also be an environment variable, for example SURGECAST_LOG_LEVEL=debug.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

#: Faults of a path that the user named, or of a folder below it.
_FILE_FAULTS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG,
)  # fmt: skip


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"surgecast {version('surgecast')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with settings; environment variables and options override it."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for logs, models and the broker's data. [var]")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [info]")
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    flags: dict[str, Any] = {}
    if data_dir is not None:
        flags["data_dir"] = data_dir
    if log_level is not None:
        flags["log_level"] = log_level
    context.obj = Globals(config=config, flags=flags)


for _commands in (events, roles, archive, batch, models, bench, ops):
    _commands.register(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    try:
        status = app(args=arguments, standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, which is fine
        return 0
    except Exception as error:
        explained = _explanation(error)
        if explained is None:
            raise
        print(explained[1], file=sys.stderr)  # noqa: T201 - the command's own output
        return explained[0]
    return status if isinstance(status, int) else 0


def _explanation(error: Exception) -> tuple[int, str] | None:
    """Exit status and text of an expected error; None for a bug."""
    if isinstance(error, SurgecastError | ModelError):
        return 1, f"surgecast: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 1, f"surgecast: no disk space left for {error.filename or 'a file'}; free some"
    if isinstance(error, OSError) and error.errno in _FILE_FAULTS and error.filename:
        return 1, f"surgecast: {error.filename}: {error.strerror}"
    message = getattr(error, "format_message", None)  # typer's errors for wrong usage have it
    if message is None:
        return None
    text = str(message())
    if text.startswith("Usage:"):  # a command group without a command
        return 2, text
    return 2, f"surgecast: {text} (see surgecast --help)"


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
