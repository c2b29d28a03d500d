"""The store in memory keeps the contract, and is stricter than it where that finds mistakes."""

from __future__ import annotations

import pytest

from mcp_bus import lifecycle
from mcp_bus.model import State
from mcp_bus.stores.contract import NOW, StoreContract, body, lease, result
from mcp_bus.stores.memory import Medium, MemoryStore


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _medium(self) -> None:
        medium = Medium()
        self.opener = lambda: MemoryStore(medium)


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.declare("work")
    return made


def test_a_move_in_no_row_of_the_table_is_a_mistake(store: MemoryStore) -> None:
    ready = lifecycle.first(store.add(body(1)))
    with pytest.raises(AssertionError, match="in no row"):
        store.swap(ready, ready._replace(state=State.DONE, day="2026-11-21"))
    assert list(store.scan("work", State.READY)) == [ready]


def test_a_result_without_an_end_is_a_mistake(store: MemoryStore) -> None:
    ready = lifecycle.first(store.add(body(1)))
    taken = lifecycle.claim(ready, lease())
    with pytest.raises(AssertionError, match="done needs a result"):
        store.swap(ready, taken, result(taken))
    store.swap(ready, taken)
    with pytest.raises(AssertionError, match="done needs a result"):
        store.swap(taken, lifecycle.ack(taken, now=NOW))
    assert list(store.scan("work", State.LEASED)) == [taken]


def test_a_slot_whose_name_would_lose_something_is_a_mistake(store: MemoryStore) -> None:
    ready = lifecycle.first(store.add(body(1)))
    with pytest.raises(AssertionError, match="a name that says all"):
        store.swap(ready, lifecycle.claim(ready, lease("not hex")))
    assert list(store.scan("work", State.READY)) == [ready]
