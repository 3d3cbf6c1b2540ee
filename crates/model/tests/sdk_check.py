"""Checks our wire clients against the official Python SDKs of OpenAI and Anthropic.

`bodies` reads {"responses": [...], "chat": [...], "anthropic": [...]} from standard input and validates each request
body against the SDK's own parameter types; unknown fields count as errors. A schema that the answer is held to must
be one that the SDK's conversion to its provider's strict form leaves as it is. `streams PROTOCOL URL...` asks servers
with the SDK, strictly, and prints what the SDK makes of each stream, for comparison with ours.
"""

import json
import sys
import typing

# The SDKs write `Iterable`, which pydantic checks only when somebody reads it. A list is checked at once.
typing.Iterable = typing.List  # type: ignore[misc]

KEY = "sk-test-0123456789"


def bodies() -> None:
    from anthropic.types.beta.message_create_params import MessageCreateParamsStreaming as Beta
    from anthropic.types.message_create_params import MessageCreateParamsStreaming
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
    from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
    from pydantic import TypeAdapter, ValidationError

    types = {
        "responses": ResponseCreateParamsStreaming,
        "chat": CompletionCreateParamsStreaming,
        "anthropic": MessageCreateParamsStreaming,
    }
    checked = 0
    for protocol, requests in json.load(sys.stdin).items():
        for number, body in enumerate(requests):
            beta = protocol == "anthropic" and "context_management" in body
            wanted = Beta if beta else types[protocol]
            wanted.__pydantic_config__ = {"extra": "forbid"}
            try:
                TypeAdapter(wanted).validate_python(body)
            except ValidationError as error:
                sys.exit(f"{protocol} body {number} is not what the SDK would send:\n{error}")
            check_schema(protocol, number, body)
            checked += 1
    print(checked)


def check_schema(protocol: str, number: int, body: dict) -> None:
    from anthropic.lib._parse._transform import transform_schema
    from openai.lib._pydantic import _ensure_strict_json_schema

    form = body.get("text", {}).get("format") or body.get("response_format", {}).get("json_schema")
    form = form or body.get("output_config", {}).get("format")
    if form:
        ours = form["schema"]
        copy = json.loads(json.dumps(ours))
        strict = transform_schema(copy) if protocol == "anthropic" else _ensure_strict_json_schema(copy, path=(), root=copy)
        if strict != ours:
            sys.exit(f"{protocol} body {number}: the SDK makes of our schema\n{ours}\nanother one:\n{strict}")


def streams(protocol: str, urls: list) -> list:
    read = {"responses": read_responses, "chat": read_chat, "anthropic": read_anthropic}[protocol]
    return [read(dict(base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True)) for url in urls]


def read_responses(options: dict) -> dict:
    from openai import OpenAI

    response = None
    for event in OpenAI(**options).responses.create(model="m", input="x", stream=True):
        if event.type in ("response.completed", "response.incomplete"):
            response = event.response
    texts, calls = [], []
    for item in response.output:
        if item.type == "message":
            texts += [getattr(part, "text", None) or part.refusal for part in item.content]
        elif item.type == "function_call":
            calls.append((item.call_id, item.name, json.loads(item.arguments)))
        elif item.type == "custom_tool_call":
            calls.append((item.call_id, item.name, {"input": item.input}))
    return answer("".join(texts), calls, response.usage.input_tokens, response.usage.output_tokens)


def read_chat(options: dict) -> dict:
    from openai import OpenAI
    from openai.lib.streaming.chat import ChatCompletionStreamState

    state = ChatCompletionStreamState()
    messages = [{"role": "user", "content": "x"}]
    for chunk in OpenAI(**options).chat.completions.create(model="m", messages=messages, stream=True):
        state.handle_chunk(chunk)
    completion = state.current_completion_snapshot
    message = completion.choices[0].message
    functions = [(call.id, call.function) for call in message.tool_calls or []]
    calls = [(id, function.name, json.loads(function.arguments)) for id, function in functions]
    usage = completion.usage
    text = (message.content or "") + (message.refusal or "")
    return answer(text, calls, usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0)


def read_anthropic(options: dict) -> dict:
    from anthropic import Anthropic

    messages = [{"role": "user", "content": "x"}]
    # Whose events are all those of the other interface, and more.
    with Anthropic(**options).beta.messages.stream(model="m", max_tokens=1, messages=messages) as events:
        message = events.get_final_message()
    texts = [block.text for block in message.content if block.type == "text"]
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    usage = message.usage
    cache = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    extra = [part for part in usage.iterations or [] if part.type == "compaction"]
    more = sum(part.input_tokens + part.cache_read_input_tokens + part.cache_creation_input_tokens for part in extra)
    output = usage.output_tokens + sum(part.output_tokens for part in extra)
    return answer("".join(texts), calls, usage.input_tokens + cache + more, output)


def answer(text: str, calls: list, input_tokens: int, output_tokens: int) -> dict:
    return {"text": text, "calls": calls, "input_tokens": input_tokens, "output_tokens": output_tokens}


if __name__ == "__main__":
    if sys.argv[1] == "bodies":
        bodies()
    else:
        print(json.dumps(streams(sys.argv[2], sys.argv[3:])))
