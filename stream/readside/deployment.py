"""Decodes the deployment's layout (`sc2:info`) and each partition's progress (`meta`)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from model.contract import FEATURE_NAMES, FeatureSpec
from stream.errors import IncompatibleState


@dataclass(frozen=True, slots=True)
class Deployment:
    """Layout of the stored data: bucket width, partitions, horizon, quantiles, topic labels."""

    bucket_ms: int
    partitions: int
    horizon: int
    quantiles: tuple[float, ...]
    labels: Mapping[str, str]

    @classmethod
    def parse(cls, text: bytes) -> "Deployment | None":
        """Decode `sc2:info`; None before the first worker, when it has only a replay's labels.

        Raises IncompatibleState when the store was written with other features.
        """
        fields = json.loads(text)
        if "feature_names" not in fields:
            return None
        names = tuple(fields["feature_names"])
        if names != FEATURE_NAMES:
            raise IncompatibleState(
                f"the store has features {fields.get('spec_hash', names)}, this build expects "
                f"{FeatureSpec().hash}: run the same version everywhere, or use an empty store"
            )
        return cls(
            bucket_ms=int(fields["bucket_ms"]),
            partitions=int(fields["partitions"]),
            horizon=int(fields["horizon"]),
            quantiles=tuple(map(float, fields["quantiles"])),
            labels=dict(fields.get("labels") or {}),
        )

    def is_synthetic(self, topic: str) -> bool:
        """True if the events of a topic are labelled synthetic.

        >>> Deployment(1, 1, 1, (0.5,), {"clicks": "synthetic, seed 7"}).is_synthetic("clicks")
        True
        """
        return "synthetic" in self.labels.get(topic, "").lower()


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a partition: closed buckets cover `[first_bucket_ms, closed_through_ms)`."""

    first_bucket_ms: int
    closed_through_ms: int
    newest_ms: int

    @classmethod
    def parse(cls, meta: Mapping[bytes, bytes]) -> "Progress | None":
        """Decode a partition's `meta`; None before its first event.

        >>> Progress.parse({b"first_bucket_ms": b"0", b"newest_ms:orders": b"9"})
        Progress(first_bucket_ms=0, closed_through_ms=0, newest_ms=9)
        >>> Progress.parse({}) is None
        True
        """
        if b"first_bucket_ms" not in meta:
            return None
        first_ms = int(meta[b"first_bucket_ms"])
        closed_ms = int(meta.get(b"closed_through_ms", first_ms))
        newest = [int(value) for name, value in meta.items() if name.startswith(b"newest_ms:")]
        return cls(first_ms, max(closed_ms, first_ms), max(newest, default=closed_ms))

    def closed_starts(self, from_ms: int, to_ms: int, *, bucket_ms: int) -> range:
        """Starts of the closed buckets in `[from_ms, to_ms)`.

        >>> list(Progress(100, 400, 450).closed_starts(150, 900, bucket_ms=100))
        [200, 300]
        """
        skipped = max(0, -(-(from_ms - self.first_bucket_ms) // bucket_ms))
        start_ms = self.first_bucket_ms + skipped * bucket_ms
        return range(start_ms, min(to_ms, self.closed_through_ms), bucket_ms)
