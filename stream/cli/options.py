"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Clicks = Annotated[
    Path | None, typer.Option(help="Clicks of the same period: a CSV or Parquet file.")
]


Catalog = Annotated[
    Path | None,
    typer.Option(help="Catalog: a CSV or Parquet file with sku, category, brand, price."),
]


Speed = Annotated[str, typer.Option(help="Seconds of event time per second, such as 3600; or max.")]


Start = Annotated[
    str | None,
    typer.Option(
        help="Replay events from this time on, such as 2025-03-01 or an RFC 3339 time. "
        "[start of the file; sample: 2011-09-05]"
    ),
]


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


Lines = Annotated[bool, typer.Option("--progress-lines", hidden=True)]


Orders = Annotated[
    str, typer.Argument(help="Order lines: a CSV or Parquet file, or `sample` for the shipped one.")
]


Until = Annotated[
    str | None, typer.Option(help="Train only on events before this time, such as 2025-03-01.")
]
