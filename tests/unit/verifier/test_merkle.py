"""Merkle roots and proofs against RFC 6962's known tree and against tampering."""

import pytest

from verifier.merkle import included, path, root

# The leaves and roots of the certificate-transparency reference tree.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", ROOTS)
def test_known_roots(size: int) -> None:
    assert root(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize("size", range(1, 40))
def test_every_leaf_is_proved_and_nothing_else(size: int) -> None:
    leaves = [bytes([place]) for place in range(size)]
    top = root(leaves)
    for place in range(size):
        audit = path(leaves, place)
        assert included(leaves[place], place, size, audit, top)
        assert not included(b"other", place, size, audit, top)
        assert not included(
            leaves[place], place, size + 1 if size & (size - 1) == 0 else size, (*audit, b"x" * 32), top
        )
        if size > 1:
            assert not included(leaves[place], (place + 1) % size, size, audit, top)
            assert not included(leaves[place], place, size, audit[:-1], top)


def test_a_leaf_outside_the_tree_has_no_path() -> None:
    with pytest.raises(IndexError):
        path([b"a"], 1)
    assert not included(b"a", 1, 1, (), root([b"a"]))
