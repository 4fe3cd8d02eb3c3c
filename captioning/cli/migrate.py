"""Copy this project's runs and models to the database and artifacts of a team's MLflow server (docs/servers.md).

What is copied stays here, too. Nothing may write to it meanwhile.
"""

import argparse

HELP = "copy runs and models to a team's MLflow server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "database", metavar="postgresql://USER@HOST/DATABASE", help="empty database, the server's"
    )
    parser.add_argument("artifacts", metavar="s3://BUCKET/FOLDER", help="where the server has its artifacts")


def run(options: argparse.Namespace) -> int:
    """Copy, and say what comes next."""
    from captioning import migration

    migrated = migration.migrate(options.database, options.artifacts)
    print(f"{migrated.num_runs} runs and {migrated.num_versions} versions are copied, with their artifacts")
    if migrated.num_left:
        print(f"{migrated.num_left} locations outside of mlruns are kept; other machines will not find those")
    print("next: python -m flows.ui mlflow with this database and these artifacts, and here")
    print("export MLFLOW_TRACKING_URI=http://THE-SERVER:5000")
    return 0
