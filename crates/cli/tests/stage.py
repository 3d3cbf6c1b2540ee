"""Stages manifests with OpenAI's Agents SDK: one JSON object {"manifest": …, "root": …} a line in.

Host sources are relative to the current directory, as they are for the SDK.
"""

import asyncio
import json
import sys

from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient


async def stage(case):
    manifest = Manifest.model_validate(case["manifest"] | {"root": case["root"]})
    session = await UnixLocalSandboxClient().create(manifest=manifest)
    await session.start()
    await session.stop()


for line in sys.stdin:
    asyncio.run(stage(json.loads(line)))
