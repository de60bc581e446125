from pathlib import Path

import pytest

from cloud.core.errors import BadInput
from cloud.settings import load_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALLAST_LEAD_S", "7")
    settings = load_settings(write(tmp_path, 'data_dir = "data"\nlead_s = 3\nmarket_interval_s = 5'))
    assert (settings.lead_s, settings.market_interval_s, settings.data_dir) == (7, 5, tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unheard_of = 1", "cloud.toml: unheard_of: no such setting; remove it or mend its name"),
        ('lead_s = "soon"', "cloud.toml: lead_s: Input should be a valid number"),
        ('http_listen = "8080"', "cloud.toml: http_listen: '8080' is not host:port"),
        ("lead_s = ", "cloud.toml: not TOML"),
        ("sweep_interval_s = 0", "cloud.toml: sweep_interval_s: Input should be greater than 0"),
        ("lead_s = inf", "cloud.toml: lead_s: Input should be"),
        ("lead_s = nan", "cloud.toml: lead_s: Input should be"),
        ("ramp_step_w = inf", "cloud.toml: ramp_step_w: Input should be a finite number"),
        ("horizon_s = 1e12", "cloud.toml: horizon_s: Input should be less than or equal to 31622400"),
        ("price_stale_s = 1e12", "cloud.toml: price_stale_s: Input should be less than or equal to 31622400"),
        ('http_listen = "127.0.0.1:0"', "cloud.toml: http_listen: '127.0.0.1:0' is not host:port with a port from 1"),
        ('data_dir = "/etc/passwd"', "cloud.toml: data_dir: /etc/passwd cannot be a folder, since /etc/passwd is none"),
        ('data_dir = "/etc/passwd/x/y"', "cloud.toml: data_dir: /etc/passwd/x/y cannot be a folder, since /etc/passwd"),
        ('data_dir = "~no-such-person/x"', "cloud.toml: data_dir: '~no-such-person/x' is not a path"),
        ('data_dir = "a\\u0000b"', "is not a path"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_settings(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BALLAST_LEAD_S", "soon")
    with pytest.raises(BadInput, match="environment variable BALLAST_LEAD_S: Input should be a valid number"):
        load_settings()
    monkeypatch.delenv("BALLAST_LEAD_S")
    monkeypatch.setenv("BALLAST_LEED_S", "1")
    with pytest.raises(BadInput, match="environment variable BALLAST_LEED_S: no such setting"):
        load_settings()
    monkeypatch.delenv("BALLAST_LEED_S")
    with pytest.raises(BadInput, match="No such file"):
        load_settings(tmp_path / "absent.toml")


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, 'database_url = "postgresql+psycopg://u:secret@h/d"'))
    assert "secret" not in settings.redacted()


@pytest.mark.parametrize(
    "url",
    [
        "foo",
        "host=/run dbname=secret",
        "sqlite:///secret.db",
        "postgresql+psycopg2://u:secret@h/d",
        "postgresql+psycopg://u:secret@h:port/d",
        "postgresql+psycopg://u:secret@[h/d",
        "postgresql+psycopg://u:secret@h/d?secret=1",
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "MIGRATION_URL"])
def test_what_is_no_database_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    monkeypatch.setenv(f"BALLAST_{name}", url)
    with pytest.raises(BadInput, match=f"environment variable BALLAST_{name}: not the address of a database") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ballast_app:p%40ss@db.example.com/ballast",
        "postgresql://u@h:5432/d?sslmode=require",
        "postgresql+psycopg://ballast_app@/ballast?host=/run/pg&port=5432",
    ],
)
def test_addresses_of_a_database_are_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BALLAST_DATABASE_URL", url)
    found = load_settings().database_url
    assert found is not None and found.get_secret_value() == url


def test_sockets_stay_short(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, f'data_dir = "{"x" * 120}"'))
    assert len(str(settings.signer_socket)) < 100
