"""A data set's archives and single images -> data/raw.

`raw.py` brings a data set; `fetching.py` one file of any size; `pictures.py` one picture, `connections.py` many at a
time, which `parts.py` packs into archives. `answers.py` asks servers, `addresses.py` refuses private networks.

Nothing is imported here: a model in service fetches pictures without the code of data sets.
"""
