"""Reads the audit of the registry (`Registry.audit`): champions, and trainings without a model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tenure:
    """A period in which a model was the champion, and why; `until_ms` is None if it still is."""

    model_id: str
    since_ms: int
    until_ms: int | None
    note: str


def tenures(audit: Iterable[Mapping[str, Any]]) -> list[Tenure]:
    """The champions of the audit, oldest first.

    >>> one = {"at_ms": 5, "action": "promote", "model_id": "a", "note": "the first"}
    >>> back = {"at_ms": 9, "action": "rollback", "model_id": "b"}
    >>> [(t.model_id, t.since_ms, t.until_ms) for t in tenures([one, back])]
    [('a', 5, 9), ('b', 9, None)]
    """
    changes = [line for line in audit if line["action"] in ("promote", "rollback")]
    ends = [*(int(line["at_ms"]) for line in changes[1:]), None]
    return [
        Tenure(str(line["model_id"]), int(line["at_ms"]), end, str(line.get("note", "")))
        for line, end in zip(changes, ends, strict=True)
    ]


def trainings_without_model(audit: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trainings that made no model since the last one that did, oldest first.

    >>> late = {"at_ms": 9, "action": "skipped", "model_id": "", "note": "2 buckets are too few"}
    >>> made = {"at_ms": 5, "action": "publish", "model_id": "a"}
    >>> trainings_without_model([late, made]), trainings_without_model([made, late]) == [late]
    ([], True)
    """
    since: list[Mapping[str, Any]] = []
    for line in audit:
        if line["action"] == "publish":
            since = []
        elif line["action"] in ("failed", "skipped"):
            since.append(line)
    return since
