"""One frozen ``Settings`` a process: a TOML file (``--config``) under environment variables ``BALLAST_*``.

Invariants: nothing else reads the environment; an unknown or ill-typed key stops the start with one line that names
it; secrets are not printed.
"""

import hashlib
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cloud.core.errors import BadInput

_PREFIX: Final = "BALLAST_"
_LONGEST_SOCKET_PATH: Final = 100
_LONGEST_S: Final = 366 * 86400.0
_DRIVERS: Final = ("postgresql", "postgresql+psycopg")

Seconds = Annotated[float, Field(le=_LONGEST_S)]
"""A duration; a year is far enough for all of them, and keeps every moment they lead to on the calendar."""


def default_data_dir() -> Path:
    """Return ``/var/lib/ballast`` for root, else the folder ``ballast`` among the user's own data."""
    if os.geteuid() == 0:
        return Path("/var/lib/ballast")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "ballast"


class Settings(BaseSettings):
    """How this process runs. Addresses are ``host:port``; durations are seconds."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, allow_inf_nan=False)

    data_dir: Path = Field(default_factory=default_data_dir)
    database_url: SecretStr | None = None
    """The application's own non-owner login; None means the embedded PostgreSQL."""
    migration_url: SecretStr | None = None
    """The schema owner's login, needed only to migrate a database that is not embedded."""
    http_listen: str = "127.0.0.1:8080"
    link_listen: str = "127.0.0.1:7443"
    enrol_listen: str = "127.0.0.1:7444"
    public_names: tuple[str, ...] = ()
    """Names and addresses, beside localhost and ballast-cloud, that agents reach this server under."""
    mqtt_broker: str | None = None
    """An MQTT broker through which agents reach the link as well; None: over gRPC alone."""
    mqtt_server_name: str = "ballast-broker"
    """The name in the broker's certificate."""
    mqtt_ca_file: Path | None = None
    """CAs (PEM) that may vouch for the broker beside Ballast's own."""
    operator_email: str = "operator@ballast.local"
    tenant_name: str = "default"
    ingest_threads: int = Field(default=4, ge=1, le=64)
    sweep_interval_s: Seconds = Field(default=60, gt=0)
    curtailment_interval_s: Seconds = Field(default=60, gt=0)
    market_interval_s: Seconds = Field(default=900, gt=0)
    market_url: str | None = None
    market: str = "ERCOT_HB_WEST"
    hashprice_usd_per_ph_day: float = Field(default=50, gt=0)
    lead_s: Seconds = Field(default=60, ge=0)
    """The earliest start of a curtailment after now."""
    min_block_s: Seconds = Field(default=900, gt=0)
    """The shortest curtailment worth its stop and start."""
    horizon_s: Seconds = Field(default=36 * 3600, gt=0)
    ramp_step_w: float = Field(default=0, ge=0)
    ramp_step_s: Seconds = Field(default=1, gt=0)
    plan_validity_s: Seconds = Field(default=24 * 3600, gt=0)
    plan_margin_s: Seconds = Field(default=300, ge=0)
    """How long past the last release and its ramp a plan stays valid."""
    min_run_s: Seconds = Field(default=0, ge=0)
    """The shortest run between two curtailments of a miner."""
    max_off_s: Seconds = Field(default=4 * 3600, gt=0)
    """The longest a miner may be off in one go."""
    import_limit_w: float | None = Field(default=None, gt=0)
    """The most a site may draw, planned at the price of breaking it."""
    seen_within_s: Seconds = Field(default=600, gt=0)
    """A miner not read within this time is not planned for."""
    price_stale_s: Seconds | None = Field(default=None, gt=0)
    """A feed not read for this long no longer says what prices are; None is three market intervals."""
    solver_limit_s: Seconds = Field(default=10, gt=0)
    verify_interval_s: Seconds = Field(default=60, gt=0)
    """The interval in which a curtailment's delivery is measured."""
    verify_grace_s: Seconds = Field(default=900, ge=0)
    """How long past its release a curtailment waits for complete evidence."""
    baseline_s: Seconds = Field(default=600, gt=0)
    """The window before a curtailment whose mean site power is its baseline."""
    meter_gap_s: Seconds = Field(default=60, gt=0)
    """Meter readings further apart than this leave a gap that is estimated and flagged."""
    billing_interval_s: Seconds = Field(default=900, ge=1)
    """The fixed interval of billing evidence."""
    agent_certificate_days: int = Field(default=30, ge=7, le=30)
    """How long an agent's certificate holds; it is renewed from a third of that on."""
    approve_agents: bool = False
    """Every join token needs an operator's approval of the key that was made with it."""
    max_stopped_miners: int = Field(default=0, ge=0)
    """The signer refuses an order that stops more miners than this at once; 0 means no limit."""

    @field_validator("http_listen", "link_listen", "enrol_listen", "mqtt_broker")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, separator, port = value.rpartition(":")
        if not separator or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"{value!r} is not host:port with a port from 1 to 65535, for example 127.0.0.1:8080")
        return value

    @field_validator("data_dir")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        try:
            folder = value.expanduser().absolute()
            nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        except RuntimeError as error:  # there is no such home
            raise ValueError(f"{str(value)!r} is not a path: {error}") from None
        if "\0" in str(folder):
            raise ValueError(f"{str(value)!r} is not a path")
        if not nearest.is_dir():
            raise ValueError(f"{folder} cannot be a folder, since {nearest} is none; choose another")
        return folder

    @field_validator("database_url", "migration_url")
    @classmethod
    def _is_database(cls, value: SecretStr | None) -> SecretStr | None:
        """Check the form. The complaint quotes nothing: there is a password in it."""
        if value is None:
            return None
        from psycopg import ProgrammingError, conninfo  # noqa: PLC0415 - only whoever has a database of their own needs it

        try:
            parts = urlsplit(value.get_secret_value())
            understood = parts.scheme in _DRIVERS and parts.port != 0
            conninfo.conninfo_to_dict(parts._replace(scheme="postgresql").geturl())
        except (ValueError, ProgrammingError):
            understood = False
        if not understood:
            raise ValueError("not the address of a database; write postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the hook's form
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's form
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's form
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file (which arrives as init arguments)."""
        return env_settings, init_settings

    @property
    def key_dir(self) -> Path:
        """Return the folder of the link's keys and certificates."""
        return self.data_dir / "keys"

    @property
    def signer_dir(self) -> Path:
        """Return the folder that only the signer process opens."""
        return self.data_dir / "signer"

    @property
    def signer_socket(self) -> Path:
        """Return the signer's socket; a folder of the temporary directory when ``data_dir`` is too long for one."""
        path = self.signer_dir / "signer.sock"
        if len(os.fsencode(path)) < _LONGEST_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"ballast-signer-{os.geteuid()}-{name}" / "signer.sock"

    def redacted(self) -> str:
        """Return one printable line without secrets."""
        return " ".join(f"{name}={value}" for name, value in self.model_dump(mode="json").items())


def load_settings(config: Path | None = None) -> Settings:
    """Return the settings of ``config`` (TOML) under the environment.

    A relative ``data_dir`` in the file is relative to the file.

    Raises:
        BadInput: the file cannot be read, or a key is unknown or of the wrong type.
    """
    document: dict[str, Any] = {}
    if config is not None:
        document = _read_toml(config)
        folder = document.get("data_dir")
        if isinstance(folder, str) and not folder.startswith("~"):
            document["data_dir"] = str(config.absolute().parent / folder)
    _refuse_unknown_environment()
    try:
        return Settings(**document)
    except ValidationError as error:
        raise BadInput(_first_problem(error, config)) from None


def _read_toml(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{config}: {error.strerror}; give --config a readable TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{config}: not TOML: {error}; mend that line") from None


def _refuse_unknown_environment() -> None:
    known = {(_PREFIX + name).upper() for name in Settings.model_fields} | {_PREFIX + "SHARED"}
    for name in os.environ:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            raise BadInput(f"environment variable {name}: no such setting; unset it or mend its name")


def _first_problem(error: ValidationError, config: Path | None) -> str:
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "settings"
    known = field.split(".")[0] in Settings.model_fields
    from_environment = (_PREFIX + field).upper() in {name.upper() for name in os.environ}
    where = (
        f"environment variable {(_PREFIX + field).upper()}" if from_environment else f"{config or 'settings'}: {field}"
    )
    if not known:
        return f"{where}: no such setting; remove it or mend its name"
    cause = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {cause}"
