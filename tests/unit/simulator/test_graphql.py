import pytest

from simulator.graphql import BadQuery, parse_query, select

DOCUMENT = {
    "bos": {"hostname": "miner", "uptime": {"durationS": 7}},
    "config": {"__typename": "Config", "groups": [{"id": "0"}, {"id": "1"}]},
    "add": lambda arguments: {"__typename": "Sum", "value": sum(arguments["numbers"])},
    "echo": lambda arguments: {"said": repr(arguments["what"])},
}


def ask(text: str, **variables: object):
    return select(DOCUMENT, parse_query(text, variables)[1])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{bos{hostname}}", {"bos": {"hostname": "miner"}}),
        ("query Named { bos { uptime { durationS } } }", {"bos": {"uptime": {"durationS": 7}}}),
        ("{ name: bos { host: hostname } }", {"name": {"host": "miner"}}),
        ("{config{groups{id}}}", {"config": {"groups": [{"id": "0"}, {"id": "1"}]}}),
        (
            "{config{... on Config{groups{id}} ... on Error{message}}}",
            {"config": {"groups": [{"id": "0"}, {"id": "1"}]}},
        ),
        ("{config{__typename}}", {"config": {"__typename": "Config"}}),
        ("{add(numbers: [1, 2, -4]){value}}", {"add": {"value": -1}}),
        ('{echo(what: "a \\"b\\" \\n"){said}} # the end\n', {"echo": {"said": repr('a "b" \n')}}),
        (
            "{echo(what: {a: true, b: null, c: WORD, d: 1.5}){said}}",
            {"echo": {"said": "{'a': True, 'b': None, 'c': 'WORD', 'd': 1.5}"}},
        ),
    ],
)
def test_what_is_asked_for_is_found(text, found):
    assert ask(text) == found


def test_variables_are_filled_in():
    text = "mutation Add($numbers: [Int!]!, $unused: Int = 1) { add(numbers: $numbers) { value } }"
    assert parse_query(text, {"numbers": [2, 3]})[0] == "mutation"
    assert ask(text, numbers=[2, 3]) == {"add": {"value": 5}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected {"),
        ("{bos{nothing}}", 'Unknown field "nothing"'),
        ("{bos}", "needs a selection"),
        ("{bos{hostname}", "the end"),
        ("{bos{hostname}} extra", "behind the query"),
        ("{add(numbers: $none){value}}", 'Variable "$none"'),
        ("{bos{%}}", "cannot read"),
        ("{" + "a{" * 50, "too deep"),
        ("mutation(", "the end"),
    ],
)
def test_what_cannot_be_answered_is_said(text, said):
    with pytest.raises(BadQuery, match=said.replace("$", r"\$").replace("{", r"\{")):
        ask(text)
