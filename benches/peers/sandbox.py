"""The OpenAI Agents SDK's half of the bench `sandbox`: its local sandbox, which on Linux isolates nothing.

Prints one JSON object a line; the operations have the names that `sandbox.rs` gives them.
"""

import asyncio
import time

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from common import introduce, say


class Clock:
    """Times of each operation, in milliseconds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def note(self, operation: str, began: float) -> None:
        self.times.setdefault(operation, []).append((time.perf_counter() - began) * 1e3)

    def report(self) -> None:
        for operation, ms in self.times.items():
            say("times", operation=operation, ms=ms)


async def start(client: UnixLocalSandboxClient, manifest: Manifest | None = None):
    session = await client.create(manifest=manifest or Manifest())
    await session.start()
    return session


async def delete(client: UnixLocalSandboxClient, session) -> None:
    await session.aclose()
    await client.delete(session)


async def run(session, *argv: str) -> None:
    result = await session.exec(*argv, shell=False)
    assert result.exit_code == 0, result


async def main() -> None:
    introduce("openai-agents")
    client, clock = UnixLocalSandboxClient(), Clock()

    for _ in range(30):
        began = time.perf_counter()
        session = await start(client)
        await run(session, "/bin/true")
        clock.note("create, start, run true", began)
        began = time.perf_counter()
        await delete(client, session)
        clock.note("delete", began)

    session = await start(client)
    for _ in range(100):
        began = time.perf_counter()
        await run(session, "/bin/true")
        clock.note("run true by argv", began)
        began = time.perf_counter()
        await run(session, "bash", "-c", "true")
        clock.note("run true by bash -c", began)
    for _ in range(20):
        began = time.perf_counter()
        update = await session.pty_exec_start("/bin/true", shell=False, tty=True, yield_time_s=30)
        assert update.exit_code == 0, update
        clock.note("terminal: true to its end", began)
    # It answers no earlier than it was told to wait, and at least 250 ms are waited: no matter when the word came.
    for _ in range(3):
        began = time.perf_counter()
        update = await session.pty_exec_start(
            "echo ready; exec sleep 60", shell=["bash", "-c"], tty=True, yield_time_s=0
        )
        assert update.output.startswith(b"ready"), update
        clock.note("terminal: shell to its first word", began)
        await session.pty_terminate_all()
    await delete(client, session)

    for _ in range(2):
        # Its entries have the mode 0755 as ours do.
        manifest = Manifest(
            entries={
                f"file-{index:04}.txt": File(content=f"This is file {index}.\n".encode() * 5)
                for index in range(1000)
            }
        )
        began = time.perf_counter()
        session = await start(client, manifest)
        clock.note("create, start, write 1,000 files", began)
        await delete(client, session)
    clock.report()


asyncio.run(main())
