"""Prefect flows over the stages of dvc.yaml.

The one place where Prefect's defaults are replaced, before anything imports it: its files stay in
`$CAPTIONING_HOME/.work/prefect`, and a temporary server may take two minutes to start (its own limit of 20
s is too short for a busy machine). Export a variable beforehand to decide otherwise.
"""

import os

from captioning import home

os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
if "PREFECT_HOME" not in os.environ:
    os.environ["PREFECT_HOME"] = str(home.work("prefect"))
