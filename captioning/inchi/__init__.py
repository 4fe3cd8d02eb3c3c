"""What a standard InChI may look like, lexeme by lexeme: layers in order, each consistent with those before it.

A state (`captioning.inchi.states`) says which lexemes may come next: numbers, and symbols (elements, names of layers,
punctuation). It never allows a lexeme after which the InChI cannot be completed, and `shortest` gives a next lexeme on
a way that ends.
"""
