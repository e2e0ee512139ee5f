"""Judges the scores of each day for drift: alerts, and requests for a retrain.

There is one watch for the whole deployment. When a day of event time has ended, it passes the day's
scores of all partitions to the tests of `model/evaluation/drift.py`. An alert is an incident of one
volume class: it opens, and is resolved when the scores are as before, or have become the new
normal. A retrain is requested when an incident opens, and again every `drift.cooldown` of event
time while one is open.

The baseline is learned per model family. When another family serves (the network after the
fallback), open incidents are resolved and learning starts over; a retrained model of the same
family is compared with its predecessors.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from model.durations import DAY_MS
from model.evaluation.drift import ClassDrift, Reading
from model.evaluation.score_sums import N_SUMS, SUMS, VOLUMES, Sums
from stream.scoring.model_family import family_of
from stream.series_ids import TOTAL
from stream.settings import DriftSettings

VERSION: Final = 3
_WEIGHT: Final = SUMS.index("weight")
#: Meaning of each signal, for people.
_MEANING: Final = {
    "loss": "forecasts have become worse",
    "pit": "demand has moved away from the forecasts",
}

#: Sums [V, H, K] of a day by model, added over all partitions.
DayScores = Mapping[str, Sums]


@dataclass(slots=True)
class Incident:
    """Drift of a volume class that is reported and not yet resolved."""

    alert_id: str
    started_ms: int
    signal: str


@dataclass(slots=True)
class DriftState:
    """State between days; every day before `through_ms` has been judged."""

    through_ms: int | None = None
    #: The model family that `classes` have learned from.
    family: str | None = None
    classes: dict[str, ClassDrift] = field(default_factory=dict)
    open: dict[str, Incident] = field(default_factory=dict)
    requested_ms: int | None = None


class DriftWatch:
    """Judges one day after the other, in order; does no input or output."""

    def __init__(self, settings: DriftSettings, state: DriftState | None = None) -> None:
        self._settings = settings
        self.state = state or DriftState()

    def day(self, day_ms: int, scores: DayScores) -> tuple[list[dict[str, Any]], str | None]:
        """Judge a day. Returns its alert records, and the reason for a retrain or None."""
        state = self.state
        state.through_ms = day_ms + DAY_MS
        family = _serving_family(scores)
        if family is None:
            return [], self._retrain(day_ms)
        new_family = state.family not in (None, family)
        alerts = []
        for number, volume in enumerate(VOLUMES):
            sums = [sums_VHK[number] for sums_VHK in scores.values()]
            drift = state.classes.get(volume)
            if drift is None:
                drift = ClassDrift(self._settings.threshold, self._settings.warm_up_days)
                state.classes[volume] = drift
            readings = drift.update(np.sum(sums, axis=0).reshape(-1, N_SUMS))
            if readings:
                alerts += self._judge(volume, readings, day_ms, new_family=new_family)
        if new_family:
            state.classes, state.open = {}, {}
        state.family = family
        return alerts, self._retrain(day_ms)

    def _judge(
        self, volume: str, readings: Mapping[str, Reading], day_ms: int, *, new_family: bool
    ) -> list[dict[str, Any]]:
        incident = self.state.open.get(volume)
        if incident is None:
            if new_family:
                return []
            alarmed = [name for name, reading in readings.items() if reading.alarm]
            if not alarmed:
                return []
            signal = alarmed[0]
            incident = Incident(f"drift-{volume}-{day_ms}", day_ms + DAY_MS, signal)
            self.state.open[volume] = incident
            return [_alert(incident, volume, readings[signal], day_ms, state="open")]
        if not new_family and any(reading.alarm for reading in readings.values()):
            return []
        del self.state.open[volume]
        return [_alert(incident, volume, readings[incident.signal], day_ms, state="resolved")]

    def _retrain(self, day_ms: int) -> str | None:
        state = self.state
        if not state.open:
            return None
        if state.requested_ms is not None and day_ms - state.requested_ms < self._settings.cooldown:
            return None
        state.requested_ms = day_ms
        return "drift: " + ", ".join(
            f"{_MEANING[incident.signal]} ({volume} volume)"
            for volume, incident in sorted(state.open.items())
        )


def _serving_family(scores: DayScores) -> str | None:
    """The model family with most of the day's scores; None if there are none.

    >>> _serving_family({"lstm-a": np.full((1, 1, N_SUMS), 2.0), "naive": np.ones((1, 1, N_SUMS))})
    'lstm'
    """
    weight: dict[str, float] = {}
    for model_id, sums_VHK in scores.items():
        family = family_of(model_id)
        weight[family] = weight.get(family, 0.0) + float(sums_VHK[..., _WEIGHT].sum())
    return max(weight, key=weight.__getitem__, default=None)


def _alert(
    incident: Incident, volume: str, reading: Reading, day_ms: int, *, state: str
) -> dict[str, Any]:
    metric = "WQL" if incident.signal == "loss" else "mean PIT"
    return {
        "alert_id": incident.alert_id,
        "series_id": TOTAL,
        "kind": "drift",
        "severity": "warning" if state == "open" else "info",
        "state": state,
        "started_ms": incident.started_ms,
        "bucket_start_ms": day_ms,
        "observed": round(reading.value, 4),
        "expected": [round(reading.usual, 4)],
        "p_value": None,
        "units_over": None,
        "revenue_at_risk": None,
        "message": (
            f"{_MEANING[incident.signal]}, series of {volume} volume: "
            f"{metric} of the day {reading.value:.3f}, usual {reading.usual:.3f}"
        ),
    }


def encode(state: DriftState) -> bytes:
    """Encode a state as JSON; `decode` is the inverse."""
    document = {
        "version": VERSION,
        "through_ms": state.through_ms,
        "asked_ms": state.requested_ms,
        "family": state.family,
        "classes": {name: drift.state() for name, drift in state.classes.items()},
        "open": {
            name: [incident.alert_id, incident.started_ms, incident.signal]
            for name, incident in state.open.items()
        },
    }
    return json.dumps(document).encode()


def decode(payload: bytes | None) -> DriftState:
    """Decode a state; a new one for None or another version.

    >>> decode(encode(DriftState(through_ms=5))).through_ms
    5
    """
    document = json.loads(payload or b"{}")
    if document.get("version") != VERSION:
        return DriftState()
    return DriftState(
        through_ms=document["through_ms"],
        family=document["family"],
        classes={name: ClassDrift.from_state(state) for name, state in document["classes"].items()},
        open={name: Incident(*parts) for name, parts in document["open"].items()},
        requested_ms=document["asked_ms"],
    )
