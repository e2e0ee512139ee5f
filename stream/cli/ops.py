"""Commands that set up and check a deployment: `topics`, `doctor`."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stream.cli.context import settings_of
from stream.processes.output import print_json

topics = typer.Typer(
    help="Create and check the Kafka topics.\n\nExample:  surgecast topics create",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Partitions = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Partitions of each topic. [kafka.partitions]")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.add_typer(topics, name="topics")
    app.command()(doctor)


@topics.command("create")
def create(context: typer.Context, partitions: Partitions = None, as_json: Json = False) -> None:
    """Create missing topics; existing ones stay unchanged.

    Needs SURGECAST_KAFKA__BOOTSTRAP_SERVERS.

    Example:  surgecast topics create --partitions 12
    """
    from stream.kafka.admin import create_topics
    from stream.topics import TOPICS

    settings = settings_of(context, **_kafka(partitions))
    created = create_topics(settings)
    if as_json:
        print_json({"created": created, "partitions": settings.kafka.partitions})
        return
    for topic in TOPICS:
        state = "created" if topic.name in created else "exists"
        typer.echo(f"{topic.name:<12} {state}")


@topics.command("describe")
def describe(context: typer.Context, partitions: Partitions = None, as_json: Json = False) -> None:
    """Show and check partitions, retention and compaction.

    Exits with 1 if a topic is missing or wrong. Needs SURGECAST_KAFKA__BOOTSTRAP_SERVERS.

    Example:  surgecast topics describe --json
    """
    from stream.kafka.admin import describe_topics, retention_text
    from stream.topics import TOPICS

    states = describe_topics(settings_of(context, **_kafka(partitions)))
    if as_json:
        print_json(
            {
                "topics": [
                    {
                        "name": state.name,
                        "direction": topic.direction,
                        "keyed_by": topic.keyed_by,
                        "partitions": state.partitions,
                        "replication": state.replication,
                        "config": state.config,
                        "problem": state.problem,
                    }
                    for state, topic in zip(states, TOPICS, strict=True)
                ]
            }
        )
    else:
        table = Table(
            "topic", "direction", "key", "partitions", "replication", "retention", "problem"
        )
        for state, topic in zip(states, TOPICS, strict=True):
            table.add_row(
                state.name,
                topic.direction,
                topic.keyed_by,
                str(state.partitions or "-"),
                str(state.replication or "-"),
                retention_text(state, topic),
                state.problem or "",
            )
        Console().print(table)
    if any(state.problem for state in states):
        raise typer.Exit(1)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check broker, topics, store, events, GPU, packages and clock.

    Exits with 1 if anything is wrong, and shows how to fix it.

    Example:  surgecast doctor
    """
    from stream.ops.doctor import examine

    checks = examine(settings_of(context))
    if as_json:
        print_json(
            {
                "ok": all(check.status != "wrong" for check in checks),
                "checks": [check.as_dict() for check in checks],
            }
        )
    else:
        table = Table("check", "", "found", "what to do")
        marks = {"ok": "[green]ok", "note": "[yellow]note", "wrong": "[red]wrong"}
        for check in checks:
            table.add_row(check.name, marks[check.status], check.found, check.advice)
        Console(file=sys.stdout).print(table)
    if any(check.status == "wrong" for check in checks):
        raise typer.Exit(1)


def _kafka(partitions: int | None) -> dict[str, dict[str, int]]:
    return {} if partitions is None else {"kafka": {"partitions": partitions}}
