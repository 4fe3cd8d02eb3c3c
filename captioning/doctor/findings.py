"""What a check of the doctor finds."""

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about one thing."""

    state: str
    """`ok`, `warning` (works, but costs or will break) or `problem` (does not work)."""
    what: str
    mend: str = ""
    """What to type or do; empty where nothing is to be done."""


def ok(what: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(state=OK, what=what)


def warning(what: str, mend: str) -> Finding:
    """Return that a thing works, but costs something or will break."""
    return Finding(state=WARNING, what=what, mend=mend)


def problem(what: str, mend: str) -> Finding:
    """Return that a thing does not work."""
    return Finding(state=PROBLEM, what=what, mend=mend)
