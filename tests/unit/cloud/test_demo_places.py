"""Two demos that start together never meet, not even with one seed."""

import socket

from cloud.cli.demo.places import Places


def test_what_one_demo_holds_no_other_gets_until_it_ends():
    first, second = Places(7), Places(7)
    ports, networks = first.ports(11), first.networks(3)
    assert len({*ports}) == 11
    others = second.ports(11)
    assert not {*ports} & {*others}
    assert not {*networks} & {*second.networks(3)}
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
    for network in networks:
        socket.create_server((f"{network}.1.1", 4028)).close()
    first.close()
    again = Places(7)
    assert again.ports(11) == ports
    again.close()
    second.close()


def test_a_network_whose_miners_place_is_taken_is_passed_over():
    probe = Places(3)
    (network,) = probe.networks(1)
    probe.close()
    with socket.create_server((f"{network}.1.1", 4028)):
        places = Places(3)
        assert places.networks(1) != [network]
        places.close()
