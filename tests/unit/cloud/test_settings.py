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


def test_sockets_stay_short(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, f'data_dir = "{"x" * 120}"'))
    assert len(str(settings.signer_socket)) < 100
