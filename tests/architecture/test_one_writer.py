"""One writer per table: a table is declared in cloud/models/OWNER.py, and only cloud/OWNER writes it.

Seen as writes: insert, update, delete and merge built on a table, and INSERT, UPDATE, DELETE, MERGE, TRUNCATE and
COPY ... FROM in any string. Migrations are exempt: they create tables and their triggers.
"""

import ast
import re
from collections.abc import Mapping

from tests.architecture.source import Module, imported_names, modules, strings

ESTABLISHED = {
    "hosting_sites": "hosting",
    "hosting_miners": "hosting",
    "miner_telemetry": "hosting",
    "curtailment_plans": "planner",
    "curtailment_plan_miners": "planner",
    "market_analytics": "analytics",
    "technical_indicators": "analytics",
    "miner_models": "calculator",
    "calculation_history": "calculator",
    "crm_leads": "crm",
    "crm_deals": "crm",
    "crm_invoices": "billing",
    "outbox_events": "infra",
}
SHARED = {"base", "tenancy", "__init__"}
BUILDERS = {"insert", "update", "delete", "merge"}
WRITING = re.compile(
    r"\b(?:INSERT\s+INTO|UPDATE(?:\s+ONLY)?|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE(?:\s+TABLE)?|COPY)\s+\"?([a-z_]+)",
    re.IGNORECASE,
)


def declared(models: tuple[Module, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """({table: owner}, {constant: table}) of every `NAME = tenant_table("name", ...)` in cloud/models."""
    owners: dict[str, str] = {}
    constants: dict[str, str] = {}
    for module in models:
        owner = module.path.rsplit("/", 1)[-1].removesuffix(".py")
        for node in ast.walk(module.tree):
            target = (
                node.target
                if isinstance(node, ast.AnnAssign)
                else node.targets[0]
                if isinstance(node, ast.Assign)
                else None
            )
            value = node.value if isinstance(node, ast.AnnAssign | ast.Assign) else None
            if (
                isinstance(target, ast.Name)
                and isinstance(value, ast.Call)
                and _name(value.func, {}) in {"tenant_table", "Table"}
            ):
                name = value.args[0]
                assert isinstance(name, ast.Constant), f"{module.path}: a table's name is written out"
                owners[name.value] = owner
                constants[target.id] = name.value
    return owners, constants


def written(module: Module, constants: dict[str, str], tables: set[str]) -> list[tuple[int, str]]:
    """(line, table) of each write in the module."""
    found = [
        (line, table.lower())
        for line, text in strings(module)
        for table in WRITING.findall(text)
        if table.lower() in tables
    ]
    names = imported_names(module.tree)
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or _name(node.func, names) not in BUILDERS:
            continue
        subjects = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "table")]
        if isinstance(node.func, ast.Attribute):
            subjects.append(node.func.value)
        found += [
            (node.lineno, constants[_name(subject, names)])
            for subject in subjects
            if _name(subject, names) in constants
        ]
    return found


def _name(node: ast.expr, names: Mapping[str, str]) -> str:
    """The last part of what a name or attribute stands for, whatever the module imported it as."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id).rpartition(".")[2]
    return node.attr if isinstance(node, ast.Attribute) else ""


def owner_of(path: str) -> str:
    """cloud/hosting/store.py -> hosting."""
    parts = path.split("/")
    return parts[1].removesuffix(".py") if len(parts) > 1 else ""


def test_only_the_owner_writes_a_table():
    owners, constants = declared(modules("cloud/models"))
    wrong = [
        f"{module.path}:{line} writes {table}, which {owners[table]} owns"
        for module in modules("cloud")
        if not module.path.startswith("cloud/migrations/")
        for line, table in written(module, constants, set(owners))
        if owner_of(module.path) != owners[table]
    ]
    assert wrong == []


def test_each_table_stands_in_a_file_of_its_owner():
    owners, _ = declared(modules("cloud/models"))
    assert owners, "no table found under cloud/models"
    assert {table: owner for table, owner in owners.items() if ESTABLISHED.get(table, owner) != owner} == {}
    assert {table: owner for table, owner in owners.items() if owner in SHARED} == {}


def test_the_scan_sees_every_form_of_a_write():
    tables = {"crm_deals", "crm_leads"}
    constants = {"CRM_DEALS": "crm_deals"}
    source = """
insert(CRM_DEALS).values(a=1)
models.CRM_DEALS.update()
upsert(models.CRM_DEALS)
f"UPDATE crm_leads SET a = {b}"
"delete from crm_leads"
"SELECT * FROM crm_leads"
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy import sql as language
from cloud.models.crm import CRM_DEALS as deals
upsert(table=deals)
language.delete(deals)
select(deals)
"""
    assert sorted(written(Module("x", ast.parse(source), 6), constants, tables)) == [
        (2, "crm_deals"), (3, "crm_deals"), (4, "crm_deals"), (5, "crm_leads"), (6, "crm_leads"),
        (11, "crm_deals"), (12, "crm_deals"),
    ]  # fmt: skip
