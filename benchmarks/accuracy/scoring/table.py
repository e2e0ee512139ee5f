"""The one table over all panels: panel × level × model, pooled means, and what is beyond noise."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.scoring.bootstrap import Comparison, compare, compare_pooled
from benchmarks.accuracy.scoring.results import TaskResult
from benchmarks.accuracy.scoring.scores import LEVELS, Doubles

_FIGURES: Final = ("wql", "sql", "mase", "pit_coverage")


def show_scores(results: Sequence[TaskResult], naive: str, console: Console) -> None:
    """Print a row for each panel, level and model; `ratio` is to the WQL of `naive`."""
    table = Table("panel", "level", "model", "WQL", "ratio", "SQL", "MASE", "PIT 80 %", "steps ≥ 1")
    for result in results:
        for level in result.truth.levels:
            rows = [row for row in result.rows if row["level"] == level]
            base = next((row for row in rows if row["model"] == naive), None)
            for row in sorted(rows, key=lambda row: row["wql"] or np.inf):
                figures = [_text(row[name]) for name in _FIGURES]
                ratio = None if base is None else _ratio(row["wql"], base["wql"])
                behind = "–" if base is None else str(steps_behind(row, base))
                cells = [result.task, level, row["model"], figures[0], _text(ratio)]
                table.add_row(*cells, *figures[1:], behind)
        table.add_section()
    console.print(table)


def show_pooled(results: Sequence[TaskResult], naive: str, console: Console) -> None:
    """Print the geometric mean over panels of WQL divided by that of `naive`, by level."""
    table = Table("level", "model", "panels", "mean of ratios")
    for row in pooled(results, naive):
        table.add_row(row["level"], row["model"], str(row["panels"]), _text(row["ratio"]))
    console.print(table)


def pooled(results: Sequence[TaskResult], naive: str) -> list[dict[str, Any]]:
    """Geometric means over the panels where a model and `naive` have been scored, best first."""
    rows = []
    for level in LEVELS[:-1]:
        names = dict.fromkeys(row["model"] for result in results for row in result.rows)
        means = []
        for name in names:
            pairs = [(result.wql(name, level), result.wql(naive, level)) for result in results]
            ratios = [_ratio(ours, base) for ours, base in pairs]
            known = [ratio for ratio in ratios if ratio is not None]
            if known:
                mean = float(np.exp(np.mean(np.log(known))))
                means.append({"level": level, "model": name, "panels": len(known), "ratio": mean})
        rows += sorted(means, key=lambda row: row["ratio"])
    return rows


def comparisons(
    results: Sequence[TaskResult], name: str, peers: Sequence[str], floor: str, level: str = "sku"
) -> list[dict[str, Any]]:
    """The model `name` against the best of `peers` and the peer `floor`, on each panel and pooled.

    Without its forecasts, or those of any peer, a panel is left out.
    """
    rows: list[dict[str, Any]] = []
    pairs: dict[str, list[tuple[Doubles, Doubles]]] = {"the best peer": [], floor: []}
    for result in results:
        found = {peer: result.wql(peer, level) for peer in peers}
        others = {peer: wql for peer, wql in found.items() if wql is not None}
        if not others or result.wql(name, level) is None:
            continue
        ours_OS = result.level_losses(name, level)
        best = min(others, key=lambda peer: others[peer])
        pairs["the best peer"].append((ours_OS, result.level_losses(best, level)))
        if floor in others:
            pairs[floor].append((ours_OS, result.level_losses(floor, level)))
        for peer in dict.fromkeys((best, floor)):
            if peer in others:
                made = compare(ours_OS, result.level_losses(peer, level))
                rows.append(_compared(result.task, peer, made, best=peer == best))
    for peer, both in pairs.items():
        if len(both) > 1:
            rows.append(_compared(f"all {len(both)}", peer, compare_pooled(both), best=False))
    return rows


def show_comparisons(rows: Sequence[dict[str, Any]], name: str, console: Console) -> None:
    """Print how the WQL of `name` compares with the best peer and the refitted trees."""
    table = Table("panel", "against", f"WQL of {name} ÷ theirs", "95 %", "P(below)", "beyond noise")
    for row in rows:
        against = f"{row['peer']} (best)" if row["best"] else row["peer"]
        interval = f"{row['low']:.3f} – {row['high']:.3f}"
        sure = "yes" if row["beyond_noise"] else "no"
        table.add_row(
            row["panel"], against, f"{row['ratio']:.3f}", interval, f"{row['better']:.2f}", sure
        )
    console.print(table)


def steps_behind(row: dict[str, Any], base: dict[str, Any]) -> int:
    """Number of steps at which a model's WQL is not below that of the baseline.

    >>> steps_behind({"wql_by_step": [0.1, 0.3, None]}, {"wql_by_step": [0.2, 0.3, None]})
    1
    """
    both = zip(row["wql_by_step"], base["wql_by_step"], strict=True)
    return sum(ours >= theirs for ours, theirs in both if ours is not None and theirs is not None)


def _compared(panel: str, peer: str, made: Comparison, *, best: bool) -> dict[str, Any]:
    return {
        "panel": panel,
        "peer": peer,
        "best": best,
        "ratio": round(made.ratio, 4),
        "low": round(made.low, 4),
        "high": round(made.high, 4),
        "better": round(made.better, 3),
        "beyond_noise": made.beyond_noise,
    }


def _ratio(wql: float | None, base: float | None) -> float | None:
    return wql / base if wql is not None and base else None


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
