"""Configuration of networks and training: frozen, typed, stored whole in every checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from model.durations import DAY_MS
from model.time_zones import UTC_ZONE, require_zone

Architecture = Literal["lstm", "gru", "transformer"]
Precision = Literal["auto", "float32", "bfloat16"]
Target = Literal["revenue", "visitors"]

#: Share of a bucket without stock at which its sales become censored demand.
CENSORED_SHARE = 0.5
#: Targets a network can forecast in addition to units.
TARGETS: tuple[Target, ...] = get_args(Target)
#: Levels a network forecasts; any others are derived (`model.networks.quantile_levels`).
NETWORK_QUANTILES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
#: Fields that older builds do not know, with the values that mean what those builds do.
_NEWER: Final[dict[str, Any]] = {"targets": (), "timezone": UTC_ZONE}
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Architecture, inputs and outputs of a network.

    `memory_days` is the span of the slow carried mean (the output scale), `scale_floor` its minimum
    in units per bucket; `holidays_country` is a code of the `holidays` package, or None for a
    calendar without holidays. `timezone` is the IANA name of the zone whose wall clock the calendar
    of buckets below a day reads. `context` is the length of the transformer's rolling cache;
    `plans` adds the plans of each series as inputs; with `year_terms` the calendar has the season
    of the year, which needs a year and a half of history to learn; `inputs_off` names inputs
    (`model.inputs.series_inputs.input_names`) that are set to zero. A bucket whose share without
    stock reaches `censored_share` counts as censored. `static` is the width of the embedding of
    category, location and brand (0 = none); `prior` starts a newcomer with a level from category,
    price and first clicks. `targets` are forecast in addition to units (see
    `model.inputs.targets`).

    Raises ValueError for an invalid horizon, quantile, size or time zone.

    >>> ModelConfig(horizon=24, bucket_ms=3_600_000).buckets_per_day
    24
    """

    horizon: int
    bucket_ms: int
    quantiles: tuple[float, ...] = DECILES
    architecture: Architecture = "lstm"
    hidden: int = 64
    layers: int = 2
    rank: int = 48
    dropout: float = 0.1
    context: int = 64
    memory_days: float = 28.0
    scale_floor: float = 0.02
    year_terms: bool = False
    plans: bool = False
    censored_share: float = CENSORED_SHARE
    inputs_off: tuple[str, ...] = ()
    static: int = 0
    prior: bool = False
    holidays_country: str | None = "GB"
    targets: tuple[Target, ...] = ()
    timezone: str = UTC_ZONE

    def __post_init__(self) -> None:
        """Check horizon, quantiles, sizes, targets and time zone."""
        if self.horizon < 1:
            raise ValueError(f"horizon {self.horizon} must be at least 1")
        if self.bucket_ms < 1:
            raise ValueError(f"bucket_ms {self.bucket_ms} must be positive")
        rising = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if not self.quantiles or not rising or not 0 < self.quantiles[0] <= self.quantiles[-1] < 1:
            raise ValueError(f"quantiles {self.quantiles} must rise strictly within (0, 1)")
        if not 0 < self.censored_share <= 1:
            raise ValueError(f"censored_share {self.censored_share} must be in (0, 1]")
        if min(self.hidden, self.layers, self.rank, self.context) < 1:
            raise ValueError("hidden, layers, rank and context must be at least 1")
        if self.static < 0:
            raise ValueError(f"static {self.static} must not be negative")
        if not set(self.targets) <= set(TARGETS) or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {self.targets} must be among {TARGETS}, each once")
        require_zone(self.timezone)

    @property
    def buckets_per_day(self) -> int:
        """Buckets a day, at least 1."""
        return max(1, DAY_MS // self.bucket_ms)

    @property
    def uses_static(self) -> bool:
        """True if the network reads category, location, brand or list price."""
        return self.static > 0 or self.prior

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; newer fields only if they are set, since older builds reject them.

        These are `targets` and `timezone`.
        """
        unset = {name for name, value in _NEWER.items() if getattr(self, name) == value}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in unset
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `as_dict`. Raises TypeError for an unknown name."""
        names = ("quantiles", "inputs_off", "targets")
        return cls(**values | {name: tuple(values[name]) for name in names if name in values})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of a training.

    A *chunk* is `chunk` buckets of `lanes` series; each chunk is one update. `groups` are sets of
    lanes at different times. `volume_power` weights the draw of series by demand (0 = uniform, 1 =
    by volume); a tenth is drawn by volume. For `unknown_share` of the lanes each static feature is
    hidden, so that the network learns to forecast without it. The last `finish_share` of the
    updates also learn from the validation part, at a low rate. `max_seconds` ends the training
    early; without it the same seed gives the same weights on a CPU. `precision` is that of the
    encoder's arithmetic; `auto` is bfloat16 on a GPU. Weights, state, heads and loss are always
    float32. With `pretrained` the weights start from the network that ships
    (`model.pretraining.finetune`).
    """

    model: ModelConfig
    seed: int = 7
    updates: int = 1_500
    chunk: int = 96
    lanes: int = 64
    groups: int = 4
    origins: int = 12
    reset_share: float = 0.15
    cold_share: float = 0.1
    unknown_share: float = 0.1
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    average_decay: float = 0.995
    cumulative_weight: float = 0.5
    volume_power: float = 0.8
    max_series: int = 1_500
    validation_share: float = 0.1
    finish_share: float = 0.2
    validate_every: int = 100
    patience: int = 8
    max_seconds: float | None = None
    device: str = "cpu"
    precision: Precision = "auto"
    threads: int = 1
    pretrained: bool = False
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def mixed(self) -> bool:
        """True if the encoder computes in bfloat16.

        >>> model = ModelConfig(horizon=24, bucket_ms=3_600_000)
        >>> TrainConfig(model=model).mixed, TrainConfig(model=model, device="cuda").mixed
        (False, True)
        """
        if self.precision == "auto":
            return self.device.startswith("cuda")
        return self.precision == "bfloat16"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"model": self.model.as_dict()}
