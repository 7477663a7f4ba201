"""Digests of records added up: the sum of what is there, by arithmetic of its own."""

import hashlib

import pytest

from optbench.records.digests import RecordSum, chain, rows_digest

KEYS = [f"trial-{number}" for number in range(40)]


def number_of(text):
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def summed(records):
    total = RecordSum()
    for key, digest in records:
        total.move(key, digest, 1)
    return total


def test_a_sum_is_of_keys_with_their_digests_modulo_a_digest():
    numbers = [number_of(f"{key}:d{key}") for key in KEYS]
    assert sum(numbers) > 2**256  # the sum goes round
    found = summed((key, f"d{key}") for key in KEYS)
    assert found.text == f"40:{sum(numbers) % 2**256:064x}"
    assert summed([("a", None)]).text == f"1:{number_of('a:'):064x}"


@pytest.mark.parametrize("first", [KEYS[0], KEYS[-1]])
def test_records_may_come_and_go_in_any_order(first):
    everything = [(key, key[::-1]) for key in KEYS]
    found = RecordSum(summed(reversed(everything)).text)
    assert found.text == summed(everything).text
    found.move(first, first[::-1], -1)
    assert found.text == summed(r for r in everything if r[0] != first).text
    for key, digest in everything:
        if key != first:
            found.move(key, digest, -1)
    assert found.text == RecordSum().text


def test_another_digest_of_a_record_is_another_sum():
    texts = {summed([("a", digest)]).text for digest in (None, "x", "y")}
    assert len(texts) == 3


def test_the_chain_is_over_every_part_but_itself_whatever_the_order():
    parts = {"plan": "1", "records": "2"}
    assert chain(parts) == rows_digest([("plan", "1"), ("records", "2")])
    assert chain({"records": "2", "chain": "old", "plan": "1"}) == chain(parts)
    assert chain({**parts, "plan": "3"}) != chain(parts)
