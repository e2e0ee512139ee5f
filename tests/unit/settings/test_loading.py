"""A setting given wrongly is one line that says what to write, before anything starts."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stream.errors import UsageError
from stream.settings import Settings, child_environment, load_settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SURGECAST_"):
            monkeypatch.delenv(name)


def loaded(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    """Settings from environment variables without their prefix."""
    for name, value in values.items():
        monkeypatch.setenv(f"SURGECAST_{name}", value)
    return load_settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("REDIS__URL", "127.0.0.1:6379", "write redis://127.0.0.1:6379"),
        ("REDIS__URL", "http://127.0.0.1:6379", "write redis://, rediss:// or unix://"),
        ("REDIS__URL", "redis://host:port/0", "its port is not a number"),
        ("REDIS__URL", "redis:///0", "no host"),
        ("REDIS__URL", "redis://host:6379/shop", "/shop is not the number of a database"),
        ("KAFKA__BOOTSTRAP_SERVERS", "kafka://127.0.0.1:9092", "without a scheme"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:9092,b:99999", "'b:99999' is not host:port"),
        ("KAFKA__GROUP", "", "at least 1 character"),
        ("KAFKA__SESSION_TIMEOUT", "0", "write 1ms or more"),
        ("KAFKA__SECURITY_PROTOCOL", "SASL_SSL", "set SURGECAST_KAFKA__USERNAME"),
        ("MODEL__QUANTILES", "[0.9,0.1]", "0.9,0.1 do not rise within 0 and 1; write 0.1,0.9"),
        ("MODEL__QUANTILES", "0.5,0.5", "write 0.5"),
        ("MODEL__QUANTILES", "0,0.5,1", "write 0.5"),
        ("MODEL__QUANTILES", "[]", "there is none"),
        ("MODEL__QUANTILES", "", "there is none"),
        ("MODEL__QUANTILES", "[0.1", "not a JSON list"),
        ("MODEL__QUANTILES", "nan", "do not rise"),
        ("MODEL__COUNTRY", "XX", "a code like GB, US or DE"),
        ("MODEL__MAX_STEP", "0", "write 1ms or more"),
        ("STATE__RETENTION", "0", "0ms is too short; write 1d or more"),
        ("STATE__RETENTION", "23h", "23h is too short; write 1d or more"),
        ("STATE__FLUSH_EVERY", "0", "write 1ms or more"),
        ("WINDOW__DEDUP", "0", "write 1ms or more"),
        ("WINDOW__MAX_GAP", "1h", "write 1d or more"),
        ("WINDOW__ALLOWED_LATENESS", "-5", "'-5' is not a duration"),
        ("WINDOW__ALLOWED_LATENESS", "99999999d", "more than 100 years"),
        ("TRAINER__EVERY", "0", "write 1m or more"),
        ("TRAINER__MAX_TIME", "0", "write 1s or more"),
        ("TRAINER__MAX_SPAN", "0", "write 1d or more"),
        ("DASHBOARD__ORIGINS", "https://shop.example", "write shop.example"),
        ("API__KEYS", '[""]', "too short"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    with pytest.raises(UsageError) as error:
        loaded(monkeypatch, **{name: value})

    assert expected in str(error.value)
    assert name.lower().replace("__", ".") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("WINDOW_BUCKET", "did you mean SURGECAST_WINDOW__BUCKET?"),
        ("WINDOW__BUKET", "did you mean SURGECAST_WINDOW__BUCKET?"),
        ("API_KEY", "did you mean SURGECAST_API__KEYS?"),
        ("DATADIR", "did you mean SURGECAST_DATA_DIR?"),
        ("NONSENSE__X", "README.md lists all settings"),
        ("WINDOW__BUCKET__X", "did you mean SURGECAST_WINDOW__BUCKET?"),
    ],
)
def test_an_unknown_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=f"^SURGECAST_{name} is not a setting; ") as error:
        loaded(monkeypatch, **{name: "1m"})

    assert hint in str(error.value)


def test_every_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"SURGECAST_A1 .*\(nor are SURGECAST_B1, SURGECAST_C1\)"):
        loaded(monkeypatch, A1="", B1="", C1="")


def test_variables_of_a_service_in_a_cluster_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kubernetes adds these to every container beside a service `surgecast-api`."""
    settings = loaded(
        monkeypatch,
        API_SERVICE_HOST="10.0.0.1", API_SERVICE_PORT="8000", API_SERVICE_PORT_HTTP="8000",
        API_PORT="tcp://10.0.0.1:8000", API_PORT_8000_TCP="tcp://10.0.0.1:8000",
        API_PORT_8000_TCP_PROTO="tcp", API_PORT_8000_TCP_PORT="8000",
        API_PORT_8000_TCP_ADDR="10.0.0.1",
    )  # fmt: skip

    assert settings.model_dump() == Settings().model_dump()


def test_lists_are_written_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch, MODEL__QUANTILES="0.1, 0.5,0.9", MODEL__TARGETS="revenue,visitors",
        INGEST__LOCATIONS='["Berlin, Mitte"]', DASHBOARD__ORIGINS="a,b:8443",
        API__KEYS="first-of-two-keys,second-of-two-keys", MODEL__INPUTS_OFF="",
    )  # fmt: skip

    assert settings.model.quantiles == (0.1, 0.5, 0.9)
    assert settings.model.targets == ("revenue", "visitors")
    assert settings.model.inputs_off == ()
    assert settings.ingest.locations == ("Berlin, Mitte",)
    assert settings.dashboard.origins == ("a", "b:8443")
    keys = [key.get_secret_value() for key in settings.api.keys]
    assert keys == ["first-of-two-keys", "second-of-two-keys"]


def test_a_child_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        kafka={"bootstrap_servers": ["a:9092", "b:9092"], "session_timeout": "4s"},
        api={"keys": ['a-"quoted"-key', "one-with,a-comma"]},
        ingest={"locations": ["Berlin, Mitte"]},
        model={"quantiles": [0.25, 0.75], "country": ""},
        window={"allowed_lateness": "1h"},
    )
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)

    assert load_settings().model_dump() == settings.model_dump()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[window]\nbuket = '1m'", "window.buket is not a setting; did you mean window.bucket?"),
        ("[windows]\nbucket = '1m'", "windows is not a setting; did you mean window?"),
        ("[model]\nquantiles = [0.9, 0.1]", "write 0.1,0.9"),
        ("[state]\nretention = 0.5", "0.5 is not a duration"),
        ("[state", "Expected ']'"),
    ],
)
def test_a_fault_of_the_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "surgecast.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_settings(path)

    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_section_that_is_not_json_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^SURGECAST_MODEL is not a JSON object"):
        loaded(monkeypatch, MODEL="lstm")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS__URL", "user:geheim@redis:6379"),
        ("REDIS__URL", "http://:geheim@redis:6379"),
        ("REDIS__URL", "redis://:ge/geheim@redis:6379/0"),
        ("API__KEYS", '["geheim'),
        ("KAFKA__BOOTSTRAP_SERVERS", "kafka://user:geheim@a:9092"),
    ],
)
def test_no_fault_repeats_a_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(UsageError) as error:
        loaded(monkeypatch, **{name: value})

    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("window", "dedup_ms"),
    [
        ({}, 900_000),
        ({"allowed_lateness": "1h"}, 3_600_000),
        ({"allowed_lateness": "1m"}, 900_000),
        ({"allowed_lateness": "1h", "dedup": "2h"}, 7_200_000),
    ],
)
def test_deduplication_covers_the_lateness(window: dict[str, Any], dedup_ms: int) -> None:
    """A longer lateness raises it, unless it is set."""
    assert load_settings(window=window).window.dedup == dedup_ms


def test_deduplication_set_below_the_lateness_is_refused() -> None:
    with pytest.raises(UsageError, match="set SURGECAST_WINDOW__DEDUP to 1h or more"):
        load_settings(window={"allowed_lateness": "1h", "dedup": "30m"})


def test_an_empty_address_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass empty texts for unset variables."""
    settings = loaded(monkeypatch, REDIS__URL="", KAFKA__BOOTSTRAP_SERVERS=" ", ROUTER__SOURCE="")

    assert settings.redis.url is settings.kafka.bootstrap_servers is settings.router.source is None


def test_a_section_may_be_one_json_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, MODEL=json.dumps({"horizon": 3, "targets": ["revenue"]}))

    assert (settings.model.horizon, settings.model.targets) == (3, ("revenue",))
