"""Clean images and captions -> examples: pixels and word ids in HDF5 shards, the vocabulary from train captions only.

`plan.py` says first what goes into which shard; then `making.py` makes each shard by itself and enters it in a ledger;
`examples.py` has all of them made. A killed run goes on with the shards that the ledger lacks and ends with the same
bytes.
"""

from captioning.preprocessing.examples import write_examples
from captioning.preprocessing.settings import PreprocessSettings

__all__ = ["PreprocessSettings", "write_examples"]
