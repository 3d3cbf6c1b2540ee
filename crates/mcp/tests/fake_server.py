"""A small MCP server (2025-11-25, stdio) that does what no good server does.

Arguments: `--twice` lists one tool twice, `--endless` never ends its list, `--answer N` ends after N calls,
`--modern` speaks 2026-07-28, `--start FILE N` writes a line to FILE at each start and ends at once from the Nth on.
"""
import json
import os
import signal
import subprocess
import sys

arguments = sys.argv[1:]


def option(name, default=None):
    return arguments[arguments.index(name) + 1] if name in arguments else default


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def receive():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def tool(name, **more):
    return {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object"}, **more}


TOOLS = [
    tool("meta"),
    tool("die"),
    tool("hang"),
    tool("ask"),
    tool("flood"),
    tool("child"),
    tool("environment"),
    tool("a.b"),
    tool("a_b"),
    tool("n" * 80),
    tool("reader", annotations={"readOnlyHint": True}),
    tool("repeater", annotations={"idempotentHint": True}),
    tool("content"),
    tool("input"),
    {"name": "either", "description": "Takes one of two.", "inputSchema": {
        "type": "object", "properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    }},
]


def text(value):
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def ask(method, params):
    send({"id": method, "method": method, "params": params})
    while True:
        answer = receive()
        if answer.get("id") == method:
            return {key: answer[key] for key in ("result", "error") if key in answer}


def call(params):
    name = params["name"]
    if name == "meta":
        return text(params.get("_meta", {}))
    if name == "die":
        print("the disk is full\x1b[31m", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "hang":
        signal.pause()
    if name == "ask":
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        return text(
            {
                "elicitation": ask("elicitation/create", {"message": "Who are you?", "requestedSchema": schema}),
                "sampling": ask("sampling/createMessage", {"messages": [], "maxTokens": 10}),
            }
        )
    if name == "flood":
        return text("x" * params["arguments"]["bytes"])
    if name == "child":
        # It keeps no pipe of ours, and does not end with us.
        null = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "600"], stdin=null, stdout=null, stderr=null)
        return text(str(child.pid))
    if name == "environment":
        return text(dict(os.environ))
    if name == "input":
        request = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who are you?",
                   "requestedSchema": {"type": "object", "properties": {}}}}
        return {"resultType": "input_required", "inputRequests": {"who": request}, "requestState": "here"}
    if name == "content":
        return params["arguments"]
    return text(f"called {name}")


if "--start" in arguments:
    path, limit = option("--start"), int(arguments[arguments.index("--start") + 2])
    with open(path, "a+") as file:
        file.write("start\n")
        file.seek(0)
        if len(file.readlines()) >= limit:
            sys.exit("this server starts no more")

calls = int(option("--answer", "1000000"))
while True:
    message = receive()
    method, params = message.get("method"), message.get("params", {})
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }
    elif method == "server/discover" and "--modern" in arguments:
        result = {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
            "ttlMs": 0,
            "cacheScope": "private",
        }
    elif method == "tools/list":
        result = {"tools": TOOLS + (TOOLS[:1] if "--twice" in arguments else [])}
        if "--endless" in arguments:
            result["nextCursor"] = "more"
    elif method == "tools/call":
        if calls == 0:
            os._exit(4)
        calls -= 1
        result = call(params)
    elif "id" in message:
        send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
        continue
    else:
        continue
    if "--modern" in arguments:
        result = {"resultType": "complete", **result}
    send({"id": message["id"], "result": result})
