"""The two wheels: each module ships once, and the agent's runs its own tests without any package of the cloud."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.architecture.source import REPOSITORY, SHIPPED, modules

pytestmark = pytest.mark.slow

AGENTS_TESTS = (
    "tests/__init__.py",
    "tests/bench",
    "tests/conftest.py",
    "tests/fuzz",
    "tests/unit/__init__.py",
    "tests/unit/agent",
    "tests/unit/sitelink",
    "tests/veiled.py",
)


def run(*command: str | Path, cwd: Path = REPOSITORY) -> str:
    """What the command printed; its whole output is in the failure when it fails."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "VIRTUAL_ENV"))
    }
    environment |= {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """{package: its wheel}, built as README says."""
    folder = tmp_path_factory.mktemp("wheels")
    flags = ("-qq", "--no-deps", "--no-build-isolation", "-w", folder)
    run(sys.executable, "-m", "pip", "wheel", *flags, "./deploy/edge", ".")
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def contents(wheels) -> dict[str, list[str]]:
    return {package: zipfile.ZipFile(path).namelist() for package, path in wheels.items()}


def tops(names: list[str]) -> set[str]:
    return {name.split("/")[0] for name in names if ".dist-info/" not in name}


def test_each_wheel_holds_its_own_packages(contents):
    assert set(contents) == {"ballast_agent", "ballast_cloud"}
    assert tops(contents["ballast_agent"]) == {"agent", "sitelink"}
    assert tops(contents["ballast_cloud"]) == {"cloud", "simulator", "verifier"}


def test_every_module_ships_exactly_once(contents):
    shipped = [name for names in contents.values() for name in names if name.endswith(".py") and "_pb2" not in name]
    written = [module.path.removeprefix("proto/") for module in modules(*SHIPPED)]
    assert sorted(shipped) == sorted(written)


def test_the_agents_wheel_carries_the_generated_stubs(contents):
    assert {f"sitelink/v1/link_pb2{end}" for end in (".py", ".pyi", "_grpc.py")} <= set(contents["ballast_agent"])


def test_the_clouds_wheel_carries_the_console(contents):
    static = {name.rsplit("/", 1)[-1] for name in contents["ballast_cloud"] if "/console/static/" in name}
    assert "manifest.json" in static
    assert any(name.startswith("console-") and name.endswith(".js") for name in static)
    assert any(name.startswith("console-") and name.endswith(".css") for name in static)


@pytest.fixture(scope="module")
def agent_only(wheels, tmp_path_factory) -> Path:
    """An environment as on a gateway: the agent's pinned requirements, its wheel, and pytest."""
    folder = tmp_path_factory.mktemp("gateway")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv/bin/python"
    run(python, "-m", "pip", "install", "-qq", "--require-hashes", "-r", REPOSITORY / "requirements/agent.txt")
    run(python, "-m", "pip", "install", "-qq", "--no-deps", wheels["ballast_agent"])
    return folder


def test_the_agent_runs_without_the_cloud(agent_only):
    assert "failsafe" in run(agent_only / "venv/bin/ballast-agent", "--help", cwd=agent_only)
    looked = "import importlib.util as u; print([n for n in ('cloud', 'simulator', 'fastapi', 'sqlalchemy', 'numpy') if u.find_spec(n)])"
    assert run(agent_only / "venv/bin/python", "-c", looked, cwd=agent_only).strip() == "[]"
    assert "No broken requirements" in run(agent_only / "venv/bin/python", "-m", "pip", "check", cwd=agent_only)


@pytest.mark.timeout(600)  # some 2,800 tests, one after another
def test_the_agents_tests_pass_without_the_cloud(agent_only):
    python = agent_only / "venv/bin/python"
    run(python, "-m", "pip", "install", "-qq", "--require-hashes", "-r", REPOSITORY / "requirements/agent-test.txt")
    for name in AGENTS_TESTS:
        source, target = REPOSITORY / name, agent_only / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.copy(REPOSITORY / "pyproject.toml", agent_only)
    shared = {"BALLAST_SHARED": os.environ.get("BALLAST_SHARED", str(REPOSITORY.parent / "shared"))}
    command = (
        "env",
        *(f"{name}={value}" for name, value in shared.items()),
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
    )
    assert " passed" in run(*command, "tests", cwd=agent_only)
