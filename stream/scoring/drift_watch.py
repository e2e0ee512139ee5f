"""Watches the scores for drift, once for the whole deployment: alerts, and asks for a retrain.

When a day of event time is over, the worker that owns the roll-ups adds up the day's scores of all
partitions (`stream/scoring/drift_task.py`), and here `model/evaluation/drift.py` is asked about
them. An alert is an incident of one volume class: it opens, and is resolved when the scores are as
before or the new ones have become usual. A retrain is asked for when one opens, and again every
`drift.cooldown` of event time while one is open.

What is usual is learnt of one kind of model. When another kind serves (the network after the
fallback), open incidents are resolved and learning begins anew; a retrained model of the same kind
is held against what its predecessors did.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from model.evaluation.drift import ClassDrift, Reading
from model.evaluation.score_sums import N_SUMS, SUMS, VOLUMES
from stream.scoring.model_family import family_of
from stream.series_ids import TOTAL
from stream.settings import DriftSettings

VERSION: Final = 2
_WEIGHT: Final = SUMS.index("weight")
#: Drift is said of the whole deployment; its roll-up stands for it.
_MEANING: Final = {
    "loss": "forecasts have become worse",
    "pit": "demand lies elsewhere than forecast",
}

#: Sums [V, H, K] of a day by model, all partitions together.
DayScores = Mapping[str, NDArray[np.float64]]


@dataclass(slots=True)
class Incident:
    """Drift of a volume class that has been reported and not resolved."""

    alert_id: str
    started_ms: int
    signal: str


@dataclass(slots=True)
class DriftState:
    """What is carried from day to day; every day before `through_ms` has been judged."""

    through_ms: int | None = None
    #: The kind of model that `classes` have learnt of.
    family: str | None = None
    classes: dict[str, ClassDrift] = field(default_factory=dict)
    open: dict[str, Incident] = field(default_factory=dict)
    asked_ms: int | None = None


class DriftWatch:
    """Judges day after day; `day` is to be called in order. It does no input or output."""

    def __init__(self, settings: DriftSettings, state: DriftState | None = None) -> None:
        self._settings = settings
        self.state = state or DriftState()

    def day(self, day_ms: int, scores: DayScores) -> tuple[list[dict[str, Any]], str | None]:
        """Alert records of the day's end, and why a retrain is asked for (None: it is not)."""
        state = self.state
        state.through_ms = day_ms + DAY_MS
        family = _serving(scores)
        if family is None:
            return [], self._retrain(day_ms)
        another = state.family not in (None, family)
        alerts = []
        for place, volume in enumerate(VOLUMES):
            sums = [sums_VHK[place] for sums_VHK in scores.values()]
            drift = state.classes.get(volume)
            if drift is None:
                drift = ClassDrift(self._settings.threshold, self._settings.warm_up_days)
                state.classes[volume] = drift
            readings = drift.update(np.sum(sums, axis=0).reshape(-1, N_SUMS))
            if readings:
                alerts += self._judged(volume, readings, day_ms, another=another)
        if another:
            state.classes, state.open = {}, {}
        state.family = family
        return alerts, self._retrain(day_ms)

    def _judged(
        self, volume: str, readings: Mapping[str, Reading], day_ms: int, *, another: bool
    ) -> list[dict[str, Any]]:
        incident = self.state.open.get(volume)
        if incident is None:
            if another:
                return []
            alarmed = [name for name, reading in readings.items() if reading.alarm]
            if not alarmed:
                return []
            signal = alarmed[0]
            incident = Incident(f"drift-{volume}-{day_ms}", day_ms + DAY_MS, signal)
            self.state.open[volume] = incident
            return [_alert(incident, volume, readings[signal], day_ms, state="open")]
        if not another and any(reading.alarm for reading in readings.values()):
            return []
        del self.state.open[volume]
        return [_alert(incident, volume, readings[incident.signal], day_ms, state="resolved")]

    def _retrain(self, day_ms: int) -> str | None:
        state = self.state
        if not state.open:
            return None
        if state.asked_ms is not None and day_ms - state.asked_ms < self._settings.cooldown:
            return None
        state.asked_ms = day_ms
        return "drift: " + ", ".join(
            f"{_MEANING[incident.signal]} ({volume} volume)"
            for volume, incident in sorted(state.open.items())
        )


def _serving(scores: DayScores) -> str | None:
    """The kind of model most of the day's scores are of; None where there are none.

    >>> _serving({"lstm-a": np.full((1, 1, N_SUMS), 2.0), "naive": np.ones((1, 1, N_SUMS))})
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
    what = "WQL" if incident.signal == "loss" else "mean PIT"
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
            f"{what} of the day {reading.value:.3f}, usual {reading.usual:.3f}"
        ),
    }


def encode(state: DriftState) -> bytes:
    """JSON of the state; `decode` is the inverse."""
    document = {
        "version": VERSION,
        "through_ms": state.through_ms,
        "asked_ms": state.asked_ms,
        "family": state.family,
        "classes": {name: drift.state() for name, drift in state.classes.items()},
        "open": {
            name: [one.alert_id, one.started_ms, one.signal] for name, one in state.open.items()
        },
    }
    return json.dumps(document).encode()


def decode(payload: bytes | None) -> DriftState:
    """The state in the bytes; a new one for None or another version.

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
        asked_ms=document["asked_ms"],
    )
