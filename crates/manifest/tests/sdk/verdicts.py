"""What OpenAI's Agents SDK says to manifests: one JSON object a line in, one a line out.

In: {"manifest": …, "scoped": [paths], "broad": [paths]}, the paths that are acknowledged before the check.
Out: {"read": bool, "dump": … or null, "used": bool, "why": text}. `used`: a session could be made with it.
"""

import importlib
import json
import sys

from agents.sandbox._mount_security import validate_manifest_mount_credential_boundaries
from agents.sandbox.manifest import Manifest

for provider in ("blaxel", "cloudflare", "daytona", "e2b", "modal", "runloop"):
    importlib.import_module(f"agents.extensions.sandbox.{provider}.mounts")

for line in sys.stdin:
    case = json.loads(line)
    out = {"read": False, "dump": None, "used": False, "why": ""}
    try:
        manifest = Manifest.model_validate(case["manifest"])
        out |= {"read": True, "dump": manifest.model_dump(mode="json")}
        if case["scoped"]:
            manifest = manifest.with_in_container_mount_credential_exposure_acknowledged(*case["scoped"])
        if case["broad"]:
            manifest = manifest.with_in_container_mount_broad_credential_exposure_acknowledged(*case["broad"])
        manifest.validated_entries()
        validate_manifest_mount_credential_boundaries(manifest, provider_backend_id=None)
        out["used"] = True
    except Exception as error:  # Every refusal counts, whatever its class.
        out["why"] = f"{type(error).__name__}: {error}"
    print(json.dumps(out), flush=True)
