"""Output format of all benchmarks."""

import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("surgecast", "torch", "numpy", "faust-streaming", "aiokafka", "msgspec", "redis")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value; `facts` are further figures of the same measurement."""

    name: str
    value: float
    unit: str
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"name": self.name, "value": self.value, "unit": self.unit, **self.facts}


def report(bench: str, device: str, rows: list[Row]) -> dict[str, Any]:
    """The object that `--json` prints: bench, device, versions, rows."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    rows_out = [row.as_dict() for row in rows]
    return {"bench": bench, "device": device, "versions": versions, "rows": rows_out}


def cpu_name() -> str:
    """Name of the processor and the number of cores available to the process."""
    import os

    cores = len(os.sched_getaffinity(0))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        models = []
    return f"{models[0] if models else platform.machine()}, {cores} cores"
