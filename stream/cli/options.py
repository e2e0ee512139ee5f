"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Clicks = Annotated[Path | None, typer.Option(help="Clicks of the same time, CSV or Parquet.")]


Catalog = Annotated[Path | None, typer.Option(help="Catalog (sku, category, …), CSV or Parquet.")]


Speed = Annotated[str, typer.Option(help="Event-time seconds a second, or max.")]


Start = Annotated[
    str | None,
    typer.Option(help="First time replayed, 2011-09-05 or RFC 3339; what is before is history."),
]


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


Lines = Annotated[bool, typer.Option("--progress-lines", hidden=True)]


Orders = Annotated[str, typer.Argument(help="Order lines, CSV or Parquet, or the word sample.")]


Until = Annotated[str | None, typer.Option(help="Learn only from what lies before this time.")]
