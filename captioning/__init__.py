"""Captioned images in, a captioning model in service out.

The one place where every tool's telemetry is switched off: whatever imports this package, and every process
it starts, inherits these settings. (DVC reads its own from `.dvc/config`.) Export a variable beforehand to
decide otherwise.
"""

import os

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",  # the word: MLflow ignores "1"
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
}

for _name, _value in TELEMETRY_OFF.items():
    os.environ.setdefault(_name, _value)
