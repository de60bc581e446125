"""What a person wrote is a bounded list of hosts of the site's own, or one line that says what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.discover.targets import MOST_HOSTS, hosts_of
from agent.errors import BadInput

pytestmark = pytest.mark.agent


@pytest.mark.parametrize(
    ("text", "first", "last", "count"),
    [
        ("10.0.0.0/22", "10.0.0.1", "10.0.3.254", 1022),
        ("10.0.0.77/24", "10.0.0.1", "10.0.0.254", 254),
        ("10.0.0.4/31", "10.0.0.4", "10.0.0.5", 2),
        ("10.0.0.4/32", "10.0.0.4", "10.0.0.4", 1),
        ("10.0.4.0-10.0.4.99", "10.0.4.0", "10.0.4.99", 100),
        ("10.0.4.250-5.9", "10.0.4.250", "10.0.5.9", 16),
        ("10.0.4.7-9", "10.0.4.7", "10.0.4.9", 3),
        ("100.64.0.1-100.64.0.2", "100.64.0.1", "100.64.0.2", 2),
        ("127.0.0.0/30", "127.0.0.1", "127.0.0.2", 2),
        ("8.8.8.8", "8.8.8.8", "8.8.8.8", 1),
        ("fe80::1", "fe80::1", "fe80::1", 1),
        ("rig-7.site", "rig-7.site", "rig-7.site", 1),
    ],
)
def test_each_form_is_understood(text: str, first: str, last: str, count: int) -> None:
    hosts = hosts_of([f" {text} "])
    assert (hosts[0], hosts[-1], len(hosts)) == (first, last, count)


def test_a_host_meant_twice_is_looked_at_once_in_the_order_written() -> None:
    assert hosts_of(["10.0.0.2", "10.0.0.1-10.0.0.3", "10.0.0.2"]) == ("10.0.0.2", "10.0.0.1", "10.0.0.3")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is no address; write for example 10.0.0.0/22"),
        ("10.0.0", "is no address"),
        ("10.0.0.256", "is no address"),
        ("a..b", "is no address"),
        ("-x", "is no address"),
        ("10.0.0.1 10.0.0.2", "is no address"),
        ("10.0.0.1:4028", "is no address"),
        ("10.0.0.0/33", "is no network"),
        ("x/24", "is no network"),
        ("fd00::/64", "miners speak IPv4"),
        ("10.0.4.9-10.0.4.1", "ends before it starts"),
        ("10.0.4.9-10.0.4.300", "is no range"),
        ("8.8.8.0/24", "is on the public internet"),
        ("9.255.255.255-10.0.0.9", "is on the public internet"),
        ("172.15.0.1-172.16.0.1", "is on the public internet"),
    ],
)
def test_what_is_none_says_what_to_write(text: str, cause: str) -> None:
    with pytest.raises(BadInput, match=cause):
        hosts_of([text])


@pytest.mark.parametrize("texts", [["10.0.0.0/8"], ["10.0.0.0/18", "10.1.0.0/18"], ["0.0.0.0/0"]])
def test_too_many_are_refused_before_the_first_is_listed(texts: list[str]) -> None:
    with pytest.raises(BadInput, match=r"more than 16,384 at once|public internet"):
        hosts_of(texts)
    assert len(hosts_of(["10.0.0.0/18"])) <= MOST_HOSTS


@given(st.text(max_size=30) | st.from_regex(r"[0-9./-]{1,24}", fullmatch=True))
def test_any_text_is_hosts_or_one_line(text: str) -> None:
    message = ""
    try:
        assert len(hosts_of([text])) >= 1
    except BadInput as error:
        message = str(error)
    assert message.isprintable()
