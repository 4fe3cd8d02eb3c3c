"""The forms in which data sets come: caption tables, long JSON lists, Karpathy's splits, zip archives, addresses."""
