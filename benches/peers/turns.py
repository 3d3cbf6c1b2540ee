"""The OpenAI Agents SDK's half of the bench `turns`: the same runs as ours, one JSON object a line.

`turns.py runs DIR`: cost per turn, and concurrent runs. `turns.py waiting`: memory of runs that wait, in a process
of their own. The model is the smallest `Model` there can be, not `agents.testing.ScriptedModel`, which copies the
whole conversation at every call. Tracing is off.
"""

import asyncio
import sys
import time

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage, function_tool
from agents.testing import assistant_message, function_call
from common import introduce, say

CONFIG = RunConfig(tracing_disabled=True)


@function_tool
async def note(text: str) -> str:
    """Takes a note."""
    return "noted"


class Script(Model):
    """Calls the tool once a turn, then ends. Notes the wall and the CPU clock at each call."""

    def __init__(self, turns: int) -> None:
        self.wall: list[int] = []
        self.cpu: list[int] = []
        self.answers = [
            [function_call("note", {"text": "hello"}, call_id=f"call-{turn}")] for turn in range(turns)
        ]
        self.answers.append([assistant_message("done")])

    async def get_response(self, *args, **kwargs) -> ModelResponse:
        self.wall.append(time.perf_counter_ns())
        self.cpu.append(time.process_time_ns())
        output = self.answers[len(self.wall) - 1]
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError


class Silence(Model):
    """Never answers."""

    asked = 0

    async def get_response(self, *args, **kwargs) -> ModelResponse:
        Silence.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError


def agent(model: Model) -> Agent:
    return Agent(name="bench", instructions="Be brief.", model=model, tools=[note])


async def run(turns: int, session=None) -> Script:
    model = Script(turns)
    await Runner.run(
        agent(model), "take notes", max_turns=turns + 2, run_config=CONFIG, session=session
    )
    return model


def gaps(marks: list[int]) -> list[int]:
    return [after - before for before, after in zip(marks, marks[1:])]


def per_turn(journal: str, model: Script) -> None:
    say("turns", journal=journal, wall_ns=gaps(model.wall), cpu_ns=gaps(model.cpu))


async def runs(folder: str) -> None:
    introduce("openai-agents")
    await run(20)  # imports and caches
    for _ in range(10):
        per_turn("none", await run(110))
    per_turn("none", await run(1050))
    for index in range(5):
        session = SQLiteSession(f"session-{index}", f"{folder}/session-{index}.db")
        per_turn("SQLiteSession", await run(110, session))
        session.close()
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(run(19) for _ in range(100)))
        say(
            "concurrent",
            journal="none",
            turns=2000,
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
        )


def resident_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


async def waiting() -> None:
    await run(20)
    before = resident_kib()
    tasks = [asyncio.create_task(Runner.run(agent(Silence()), "wait", run_config=CONFIG)) for _ in range(1000)]
    while Silence.asked < 1000:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    after, cpu = resident_kib(), time.process_time()
    await asyncio.sleep(5)
    spent = time.process_time() - cpu
    say(
        "waiting",
        journal="none",
        runs=1000,
        before_kib=before,
        after_kib=after,
        cpu_ms_per_s=spent * 1000 / 5,
    )
    for task in tasks:
        task.cancel()


if sys.argv[1] == "runs":
    asyncio.run(runs(sys.argv[2]))
else:
    asyncio.run(waiting())
