"""A Python in which nothing is installed but the packages named, and what they need."""

ONLY_THESE = """
import importlib.machinery, importlib.metadata as metadata, re, sys

def plain(name):
    return re.sub("[-_.]+", "-", name).lower()

known, waiting = {"captioning"}, sys.argv[1].split()
while waiting:
    name = plain(waiting.pop())
    if name not in known:
        known.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [re.match("[A-Za-z0-9._-]+", need)[0] for need in needs if "extra ==" not in need]
owners = metadata.packages_distributions()

class Present(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        own = owners.get(name.partition(".")[0], [])
        is_absent = own and not {plain(owner) for owner in own} & known
        return None if is_absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Present
"""
"""Begins a program: its first argument names the packages. Whatever else there is cannot be imported from then on."""
