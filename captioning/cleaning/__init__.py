"""Raw rows -> what stays, and in quarantine what went and why.

`tables.py` writes both; `images.py` judges one image and `captions.py` one caption; `measurements.py` has every image
judged, on all processors; `comparisons.py` and `near_duplicates.py` judge images beside each other.
"""

from captioning.cleaning.tables import CleanSettings, Counts, clean

__all__ = ["CleanSettings", "Counts", "clean"]
