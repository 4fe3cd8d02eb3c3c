"""InChI as RDKit writes it, of the molecule that RDKit reads.

A walk over the atoms that is written in another order is put in order; atoms that are numbered in an order which InChI
never gives (a middle carbon before an end) RDKit does not read.
"""

from captioning.chemistry import normalise

__all__ = ["EXAMPLES", "normalise"]

EXAMPLES = (
    ("InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3"),
    ("InChI=1S/C2H6O/c3-2-1/h3H,2H2,1H3", "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3"),
    ("InChI=1S/C2H6O/c1-2-3/h3H,2H3,1H3", None),
    ("ethanol", None),
)
