"""Molecules as text: RDKit in child processes, which may crash or stall."""

import os
import time

import pytest

from captioning import lookup
from captioning.chemistry import (
    Answer,
    Children,
    answers,
    inchi_of_smiles,
    normalise,
    smiles_of_inchi,
    valid_share,
)

ETHANOL = "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3"


def say(text: str) -> str | None:
    """A function of the manners of RDKit."""
    if text == "crash":
        os.abort()
    if text == "stall":
        time.sleep(60)
    if text == "raise":
        raise RuntimeError("Invariant Violation")
    return f"{text} {os.getpid()}"


def test_inchi_and_smiles_lead_to_each_other():
    assert smiles_of_inchi(ETHANOL) == "CCO"
    assert inchi_of_smiles("OCC") == ETHANOL
    assert inchi_of_smiles("C(C") is None
    assert smiles_of_inchi("ethanol") is None


def test_the_share_of_valid_texts():
    assert valid_share([ETHANOL, "InChI=1S/C2H6O/c1-2-3/h3H,2H3,1H3", "ethanol", ETHANOL]) == 0.5
    assert valid_share([]) == 0


@pytest.mark.parametrize("name", lookup.names("normalisers"))
def test_a_normaliser_gives_normal_forms_of_its_examples(name: str):
    normaliser = lookup.find("normalisers", name)
    texts, normal = zip(*normaliser.EXAMPLES, strict=True)
    assert normaliser.normalise(texts) == [*normal]
    forms = [own for own in normal if own is not None]
    assert normaliser.normalise(forms) == forms
    assert None in normal, "an example that says nothing valid"


def test_answers_keep_their_order():
    texts = [ETHANOL, "nothing"] * 20
    assert normalise(texts) == [ETHANOL, None] * 20
    assert answers("normalise", ["nothing"]) == [Answer(value=None)], "RDKit's own no is no failure"


def test_a_crash_costs_one_answer():
    children = Children(say, seconds=20, num_children=2)
    texts = ["a", "crash", "b", "c", "crash", "d"]
    found = children.ask(texts)
    assert [own.value is None for own in found] == [text == "crash" for text in texts]
    assert {own.failure for own in found if own.value is None} == {"its process was ended by SIGABRT"}
    assert [own.value.split()[0] for own in found if own.value] == ["a", "b", "c", "d"]
    children.close()


def test_a_child_that_stalls_is_ended_and_one_that_fails_goes_on():
    children = Children(say, seconds=0.5, num_children=1)
    first, stalled, failed, after, last = children.ask(["a", "stall", "raise", "b", "c"])
    assert stalled == Answer(value=None, failure="took longer than 0.5 seconds")
    assert failed == Answer(value=None, failure="RuntimeError: Invariant Violation")
    pids = [own.value.split()[1] for own in (first, after, last) if own.value]
    assert len(pids) == 3
    assert pids[0] != pids[1] == pids[2]
    children.close()


def test_a_child_is_used_again_and_then_closed():
    children = Children(say, seconds=20, num_children=1)
    first, second = (int(str(children.ask(["a"])[0].value).partition(" ")[2]) for _ in range(2))
    assert first == second
    children.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
