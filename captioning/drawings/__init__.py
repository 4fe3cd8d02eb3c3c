"""Molecules -> drawings as patents, papers and old scans have them, by RDKit.

`fragments` makes molecules up, `molecules` says what a SMILES string means, `styles` and `scans` are the settings of a
drawing and of what copying and scanning do to it, `pen` draws. RDKit may crash on a strange molecule: `making` calls
`molecules` and `pen` in child processes, many at a time.
"""
