"""Size budgets: CI fails at 80 lines a function and 600 a file; tests exempt from the second."""

import ast

from tests.architecture.source import OTHER, Module, modules, shipped

FUNCTION_LINES = 80
FILE_LINES = 600


def long_functions(module: Module) -> list[str]:
    return [
        f"{module.path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]


def test_no_function_is_over_its_budget():
    assert [line for module in shipped() + modules(*OTHER) for line in long_functions(module)] == []


def test_no_file_is_over_its_budget():
    assert [f"{module.path}: {module.lines} lines" for module in shipped() if module.lines > FILE_LINES] == []


def test_the_measure_sees_a_long_function():
    body = "def long():\n" + "    pass\n" * FUNCTION_LINES
    assert long_functions(Module("x.py", ast.parse(body), 81)) == ["x.py:1 long: 81 lines"]
