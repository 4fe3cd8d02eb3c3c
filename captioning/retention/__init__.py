"""What may go: versions, runs, cached data and interrupted work that nothing holds, and how it goes.

A version is held by an alias, by being one of the last, or by the tag `captioning.keep`: with its model, its run, and
the data that its dvc.lock names. Everything goes in an order in which a kill leaves nothing broken: first the record by
which one would find a thing, then the thing; what a kill leaves is found again, by a mark or because nothing names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captioning import aliases, store
from captioning.progress import say
from captioning.retention import dvc_cache, leftovers, records
from captioning.retention.removals import Removal

__all__ = ["Plan", "Removal", "clean", "plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would go."""

    held: list[str]
    """A sentence for each version that stays."""
    removals: list[Removal]
    """In the order in which they are made."""
    notes: list[str]
    """A sentence for what was not looked at, and why."""


def plan(model_names: Sequence[str], *, keep_last: int, days: float, clones: Sequence[Path] = ()) -> Plan:
    """Return what nothing holds, of the project in the working directory.

    Args:
        model_names: registered models that are cleaned; what other models have stays.
        keep_last: so many versions of each stay, the newest ones.
        days: what was interrupted, or never registered, stays for so long.
        clones: folders of other clones that share the DVC cache.
    """
    held, removals = records.plan(model_names, keep_last, days)
    locks, unread = records.locks_of_others({(own.model_name, own.version) for own in removals})
    cached: list[Removal] = []
    if unread:
        notes = [f"DVC's cache was not looked at: the data of {', '.join(unread)} cannot be told"]
    else:
        cached, notes = dvc_cache.plan(locks, clones)
    named = {name: set(aliases.aliases(name).values()) for name in model_names}
    return Plan(
        held=held,
        removals=[*removals, *cached, *leftovers.plan(days, records.finished(model_names), named)],
        notes=notes,
    )


def clean(model_names: Sequence[str], *, keep_last: int, days: float, clones: Sequence[Path] = ()) -> Plan:
    """Remove what nothing holds, as `plan` returns it; nothing is registered or promoted meanwhile."""
    with store.locked(aliases.LOCK):
        planned = plan(model_names, keep_last=keep_last, days=days, clones=clones)
        for removal in planned.removals:
            say(f"clean: {removal.what}")
            removal.remove()
    return planned
