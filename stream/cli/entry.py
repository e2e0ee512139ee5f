"""The command line `surgecast`. Commands live in `stream.cli_*`; heavy imports wait inside them.

Exit status: 0 done, 1 a failure explained on stderr, 2 wrong usage. A SurgecastError is a line,
never a traceback; any other exception is a fault of ours and keeps its traceback.
"""

import errno
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from model.errors import ModelError
from stream.cli import archive as cli_archive
from stream.cli import batch as cli_batch
from stream.cli import bench as cli_bench
from stream.cli import events as cli_run
from stream.cli import models as cli_models
from stream.cli import ops as cli_ops
from stream.cli import roles as cli_roles
from stream.cli.context import Globals
from stream.errors import SurgecastError

app = typer.Typer(
    name="surgecast",
    help="Streaming demand forecasts: orders and clicks in, calibrated forecasts out.\n\n"
    "Start here:  surgecast up --replay sample --speed 3600",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"surgecast {version('surgecast')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; the environment and flags win.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for logs, models and the broker's log. [var]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    flags: dict[str, Any] = {}
    if data_dir is not None:
        flags["data_dir"] = data_dir
    if log_level is not None:
        flags["log_level"] = log_level
    context.obj = Globals(config=config, flags=flags)


for _commands in (cli_run, cli_roles, cli_archive, cli_batch, cli_models, cli_bench, cli_ops):
    _commands.register(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    try:
        status = app(args=arguments, standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; nothing is wrong
        return 0
    except Exception as error:
        explained = _explanation(error)
        if explained is None:
            raise
        print(explained[1], file=sys.stderr)  # noqa: T201 - this is the command's answer
        return explained[0]
    return status if isinstance(status, int) else 0


def _explanation(error: Exception) -> tuple[int, str] | None:
    """Exit status and text of an error that is not a fault of ours; None for one that is."""
    if isinstance(error, SurgecastError | ModelError):
        return 1, f"surgecast: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 1, f"surgecast: no disk space for {error.filename or 'a file'}; free some"
    message = getattr(error, "format_message", None)  # how typer says "wrong usage"
    if message is None:
        return None
    text = str(message())
    if text.startswith("Usage:"):  # a group of commands without one of them
        return 2, text
    return 2, f"surgecast: {text} (see surgecast --help)"


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
