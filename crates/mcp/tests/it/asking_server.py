"""A server made with the official SDK whose tool asks a person before it does its work, and counts what it did."""

import sys
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp.server.mcpserver import Elicit, Resolve
from pydantic import BaseModel

# A key that outlives the process: without one, a question dies with the server that asked.
security = RequestStateSecurity(keys=["a test's key of at least 32 bytes"], ttl=7 * 24 * 60 * 60)
server = MCPServer("asking", request_state_security=security)


class Amount(BaseModel):
    euros: int


async def ask_amount(to: str) -> Elicit[Amount]:
    return Elicit(f"How much for {to}?", Amount)


@server.tool()
async def pay(to: str, amount: Annotated[Amount, Resolve(ask_amount)]) -> str:
    with open(sys.argv[1], "a") as log:
        log.write(f"{to} {amount.euros}\n")
    return f"paid {amount.euros} to {to}"


server.run("stdio")
