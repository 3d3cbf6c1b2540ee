"""What the peers' scripts share: they print one JSON object a line, the first of which says who measured."""

import json
import platform
from importlib.metadata import version


def say(case: str, **fields) -> None:
    print(json.dumps({"case": case, **fields}), flush=True)


def introduce(package: str) -> None:
    say("peer", name=f"{package} {version(package)}, Python {platform.python_version()}")
