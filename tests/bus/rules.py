"""The rules of a bus a second time, in plain Python, from the protocol's text and not from the package.

A `Model` says beforehand what each verb returns or which error it raises, and what is where afterwards.
Nothing here imports what decides in the package; times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DAY = 86_400_000
WAITING, ENDED = ("ready", "scheduled"), ("done", "cancelled", "expired")


@dataclass
class Rules:
    """The settings of a channel, as the model needs them."""

    max_attempts: int
    backoff_s: int
    max_backoff_s: int
    lease_s: int
    ttl_s: int
    max_releases: int
    retention_days: int


@dataclass
class Item:
    """One task: where it is, and everything its name and history should say."""

    id: str
    channel: str
    essence: tuple[object, ...]
    requires: frozenset[str]
    priority: int
    own_attempts: int | None
    own_backoff: float | None
    key: tuple[str, str] | None
    state: str = "ready"
    attempt: int = 0
    raised: int = 0
    releases: int = 0
    deadline: int = 0
    due: int = 0
    holder: str = ""
    token: str = ""
    lease_end: int = 0
    day: int = 0
    discarded: bool = False
    successor: str = ""
    result: str | None = None
    history: list[str] = field(default_factory=list)

    def allowed(self, rules: Rules) -> int:
        return self.raised or self.own_attempts or rules.max_attempts


class Model:
    """All tasks, and the clock."""

    def __init__(self, rules: dict[str, Rules], now: int) -> None:
        self.rules = rules
        self.now = now
        self.items: dict[str, Item] = {}
        self.pruned: set[str] = set()
        self.keys: dict[tuple[str, str], str] = {}
        # What a session knows it cannot do; such tasks it does not even expire.
        self.beyond: dict[str, set[str]] = {}

    # --- what a verb will say ------------------------------------------------------------------

    def post_says(self, key: tuple[str, str] | None, essence: tuple[object, ...]) -> str:
        """Return `new`, the id of the same task, or `DuplicateTask`."""
        if key is None or key not in self.keys:
            return "new"
        kept = self.items[self.keys[key]]
        return kept.id if kept.essence == essence else "DuplicateTask"

    def write_says(self, task_id: str, token: str) -> str:
        """Return what a worker's verb raises, or nothing."""
        if task_id in self.pruned:
            return "Gone"
        item = self.items[task_id]
        return "" if item.state == "leased" and item.token == token else "LeaseLost"

    def ack_says(self, task_id: str, token: str) -> str:
        """Return as `write_says`, but `again` for who repeats itself."""
        said = self.write_says(task_id, token)
        if said == "LeaseLost" and self.items[task_id].state == "done" and self.items[task_id].token == token:
            return "again"
        return said

    def operate_says(self, task_id: str, verb: str) -> str:
        """Return what an operator's verb raises, or nothing."""
        if task_id in self.pruned:
            return "Gone"
        item = self.items[task_id]
        states = {
            "cancel": ("ready", "scheduled", "leased"),
            "requeue": ("leased", "scheduled"),
            "retry": ("dead", "cancelled", "expired"),
            "edit": ("dead",),
            "discard": ("dead",),
            "undo": ("cancelled",),
            "reprioritise": WAITING,
        }[verb]
        replaced = verb in ("undo", "retry") and item.discarded and item.successor
        return "" if item.state in states and not replaced else "IllegalTransition"

    # --- what a verb does ----------------------------------------------------------------------

    def add(self, item: Item, delay_s: float, ttl_s: float | None) -> None:
        start = self.now
        if delay_s:
            start = item.due = self.now + int(delay_s * 1000)
            item.state = "scheduled"
        ttl = self.rules[item.channel].ttl_s if ttl_s is None else ttl_s
        item.deadline = start + int(ttl * 1000) if ttl else 0
        self.items[item.id] = item
        if item.key:
            self.keys[item.key] = item.id

    def claim(self, session: str, channels: list[str], can: frozenset[str]) -> Item | None:
        """Return what a claim gets: the oldest of the highest priority that the worker can do."""
        waiting = [item for item in self.items.values() if item.state == "ready" and item.channel in channels]
        beyond = self.beyond.setdefault(session, set())
        for item in sorted(waiting, key=lambda item: (-item.priority, item.id)):
            if item.id in beyond and not item.requires <= can:
                continue
            if item.deadline and item.deadline <= self.now:
                self._expire(item)
            elif item.requires <= can:
                return item
            else:
                beyond.add(item.id)
        return None

    def hand_over(self, item: Item, holder: str, token: str, lease_s: float | None) -> None:
        item.state, item.holder, item.token = "leased", holder, token
        item.attempt += 1
        item.lease_end = self.now + int(1000 * (self.rules[item.channel].lease_s if lease_s is None else lease_s))

    def renew(self, item: Item, lease_s: float | None) -> None:
        end = self.now + int(1000 * (self.rules[item.channel].lease_s if lease_s is None else lease_s))
        item.lease_end = max(item.lease_end, end)

    def ack(self, item: Item, result: str) -> None:
        self._end(item, "done", keep_lease=True)
        item.result = result

    def fail(self, item: Item, outcome: str, retry_in_s: float | None = None) -> None:
        rules = self.rules[item.channel]
        item.history.append(outcome)
        if item.attempt >= item.allowed(rules):
            self._back(item, "dead")
            return
        base = rules.backoff_s if item.own_backoff is None else item.own_backoff
        pause = min(base * 2 ** (item.attempt - 1), rules.max_backoff_s) if retry_in_s is None else retry_in_s
        self._back(item, "scheduled" if pause else "ready")
        item.due = self.now + int(pause * 1000) if pause else 0

    def release(self, item: Item) -> None:
        rules = self.rules[item.channel]
        item.history.append("released")
        if item.releases < rules.max_releases:
            self._back(item, "ready")
            item.attempt -= 1
            item.releases += 1
        else:
            self._back(item, "dead" if item.attempt >= item.allowed(rules) else "ready")

    def block(self, item: Item) -> None:
        item.history.append("blocked")
        self._back(item, "dead")

    def cancel(self, item: Item) -> None:
        item.history.append("cancelled")
        self._end(item, "cancelled")

    def requeue(self, item: Item) -> None:
        item.history.append("requeued")
        self._back(item, "ready")
        self._grant(item)

    def retry(self, item: Item) -> None:
        item.history.append("retried")
        item.raised = item.attempt + (item.own_attempts or self.rules[item.channel].max_attempts)
        self._back(item, "ready")
        item.deadline = item.releases = item.day = 0
        item.discarded = False

    def edit(self, item: Item, successor: Item) -> None:
        self.add(successor, 0, 0)
        item.history.append("retried")
        item.successor = successor.id
        self._end(item, "cancelled")
        item.discarded = True

    def discard(self, item: Item) -> None:
        item.history.append("discarded")
        self._end(item, "cancelled")
        item.discarded = True

    def undo(self, item: Item) -> None:
        item.history.append("undone")
        item.state = "dead" if item.discarded else "ready"
        item.day, item.discarded = 0, False
        if item.state == "ready":
            self._grant(item)

    def _grant(self, item: Item) -> None:
        """Give a task that a person made ready one more hand-over, if it has none left."""
        if item.attempt >= item.allowed(self.rules[item.channel]):
            item.raised = item.attempt + 1

    def sweep(self) -> None:
        for item in self.items.values():
            if item.state == "scheduled" and item.due <= self.now:
                item.state, item.due = "ready", 0
            if item.state == "leased" and item.lease_end <= self.now:
                self.fail(item, "lapsed")
            if item.state in WAITING and 0 < item.deadline <= self.now:
                self._expire(item)
        for item in list(self.items.values()):
            keep = self.rules[item.channel].retention_days
            if item.state in ENDED and item.day < self.now // DAY - keep:
                self.pruned.add(item.id)
                del self.items[item.id]
                if item.key:
                    del self.keys[item.key]

    def _back(self, item: Item, state: str) -> None:
        item.state, item.holder, item.token, item.lease_end, item.due = state, "", "", 0, 0

    def _end(self, item: Item, state: str, *, keep_lease: bool = False) -> None:
        holder, token = item.holder, item.token
        self._back(item, state)
        item.day = self.now // DAY
        if keep_lease:
            item.holder, item.token = holder, token

    def _expire(self, item: Item) -> None:
        item.history.append("expired")
        self._end(item, "expired")
