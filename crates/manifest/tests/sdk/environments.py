"""What Anthropic's SDK says to environments: one JSON object a line in, `ok` or why not a line out.

Its types say which keys there are; what it does not know would be refused by the service.
"""

import json
import sys

from anthropic.types.beta.environment_create_params import EnvironmentCreateParams
from pydantic import ConfigDict, TypeAdapter, with_config

form = TypeAdapter(with_config(ConfigDict(extra="forbid"))(EnvironmentCreateParams))

for line in sys.stdin:
    try:
        form.validate_python(json.loads(line))
        print("ok", flush=True)
    except Exception as error:
        print(repr(str(error)), flush=True)
