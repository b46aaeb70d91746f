"""
Which changes a subscription wants: by table, operation, changed columns and predicate. Pure.

A predicate is a user's function and may raise. It is asked when a change is delivered, where what it raises is the
failure of that change alone; everything else is decided when the journal is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backend_watcher.events.change import READ, Change, Operation

Predicate = Callable[[Change], bool]

ALL_OPERATIONS = frozenset(Operation)


@dataclass(frozen=True, slots=True)
class Rule:
    """
    What is wanted of one table.

    `columns` limits updates to those that changed one of the columns. Where the old row is not known
    (without REPLICA IDENTITY FULL) an update is wanted rather than missed.
    """

    table: str
    operations: frozenset[Operation] = ALL_OPERATIONS
    columns: frozenset[str] = frozenset()
    predicate: Predicate | None = None

    @property
    def takes_all(self) -> bool:
        """Say that every change of the table is wanted, or left to the predicate."""
        return self.operations >= ALL_OPERATIONS and not self.columns

    def wants(self, change: Change) -> bool:
        """Say whether the change is wanted, or left to the predicate."""
        if change.operation not in self.operations:
            return False
        if self.columns and change.operation is Operation.UPDATE:
            changed = change.changed_columns()
            if changed is not None and not changed & self.columns:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Route:
    """The rules of one subscription, one per table; `schema.table` names them."""

    rules: Mapping[str, Rule]
    has_predicates: bool = field(init=False, repr=False)
    _plain: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plain", frozenset(name for name, rule in self.rules.items() if rule.takes_all))
        object.__setattr__(self, "has_predicates", any(rule.predicate for rule in self.rules.values()))

    @property
    def tables(self) -> frozenset[str]:
        """The tables the subscription listens to."""
        return frozenset(self.rules)

    def agrees(self, change: Change) -> bool:
        """Ask the predicate of a change that was selected. What it raises is passed on."""
        rule = self.rules.get(change.table.full_name)
        return rule is None or rule.predicate is None or bool(rule.predicate(change))

    def select(self, changes: Sequence[Change], tables: frozenset[str]) -> Sequence[Change]:
        """
        Return the wanted changes, in order, with those that are left to a predicate.

        `tables` are those that `changes` has rows of.
        """
        # Decided once per block where it can be: most subscriptions want all of a table or nothing.
        if tables <= self._plain:
            return changes
        if tables.isdisjoint(self.rules):
            return ()
        rules = self.rules
        return [
            change
            for change in changes
            if (rule := rules.get(change.table.full_name)) is not None and (rule.takes_all or rule.wants(change))
        ]


def was_made_here(change: Change) -> bool:
    """Say whether a change was not sent by the source: its row was read, or its key found to have none."""
    return change.code == READ or change.derived


def is_repair(change: Change) -> bool:
    """Say whether a row was read, or found not to be there, so that a sink is put right."""
    return was_made_here(change) and "repair" in change.context


def was_read_for(change: Change, subscription: str) -> bool:
    """Say whether what a backfill made is for a subscription; what names nobody is for all."""
    names = change.context.get("subscriptions")
    return not names or subscription in names
