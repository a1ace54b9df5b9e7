"""OpenAI Responses (platform.openai.com/docs/api-reference/responses)."""
import json
import time

from . import openai_chat
from .answers import Ask, Refused, only

NAME = "openai-responses"
KNOWN = {"model", "input", "instructions", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls",
         "max_output_tokens", "max_tool_calls", "temperature", "top_p", "text", "reasoning", "store", "metadata", "user", "include",
         "previous_response_id", "truncation", "service_tier", "background", "safety_identifier", "prompt_cache_key", "top_logprobs"}
key_of, limits = openai_chat.key_of, openai_chat.limits


def model_of(exchange, body):
    if exchange.method != "POST" or not exchange.path.endswith("/responses"):
        return None
    return body.get("model")


def text_of(content, role):
    if isinstance(content, str):
        return content
    expected = "output_text" if role == "assistant" else "input_text"
    for part in content:
        if part.get("type") != expected:
            raise Refused(f"Invalid value: '{part.get('type')}'. Supported value for this role is: '{expected}'.", "input")
    return "".join(part["text"] for part in content)


def item_of(item, called):
    kind = item.get("type", "message")
    if kind == "message":
        only(item, {"type", "role", "content", "id", "status", "phase"}, "input")
        if item.get("role") not in ("system", "developer", "user", "assistant"):
            raise Refused(f"Invalid role {item.get('role')!r}", "input")
        return openai_chat.ROLES[item["role"]], text_of(item["content"], item["role"])
    if kind == "function_call":
        only(item, {"type", "id", "call_id", "name", "arguments", "status"}, "input")
        called.add(item["call_id"])
        return "assistant", ""
    if kind == "function_call_output":
        only(item, {"type", "id", "call_id", "output", "status"}, "input")
        if item["call_id"] not in called:
            raise Refused(f"No tool call found for function call output with call_id {item['call_id']}.", "input")
        return "tool", text_of(item["output"], "user")
    raise Refused(f"Invalid value: '{kind}'", "input")


def ask_of(exchange, body):
    only(body, KNOWN)
    messages = [("system", body["instructions"])] if body.get("instructions") else []
    called = set()
    given = body.get("input")
    if not given:
        raise Refused("One of \"input\" or \"previous_response_id\" must be provided.", "input")
    messages += [("user", given)] if isinstance(given, str) else [item_of(item, called) for item in given]
    tools = []
    for tool in body.get("tools") or []:
        only(tool, {"type", "name", "description", "parameters", "strict"}, "tools")
        if tool.get("type") != "function" or not tool.get("name"):
            raise Refused("Missing required parameter: 'tools[0].name'.", "tools")
        tools.append(tool["name"])
    choice = body.get("tool_choice", "auto")
    forced = {"auto": "", "none": "", "required": "*"}[choice] if isinstance(choice, str) else choice["name"]
    form = ((body.get("text") or {}).get("format") or {}).get("type", "text")
    limit = body.get("max_output_tokens") or 0
    if limit and limit < 16:
        raise Refused("Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16.", "max_output_tokens")
    return Ask(body["model"], messages, bool(body.get("stream")), True, [] if choice == "none" else tools, forced, form != "text", limit)


def usage(said):
    return {"input_tokens": said.input_tokens, "input_tokens_details": {"cached_tokens": said.cached_tokens},
            "output_tokens": said.output_tokens, "output_tokens_details": {"reasoning_tokens": len(said.reasoning)},
            "total_tokens": said.input_tokens + said.output_tokens}


def response(ask, number, status, output, said=None, error=None):
    return {"id": f"resp_double{number}", "object": "response", "created_at": int(time.time()), "status": status, "error": error,
            "background": False, "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None, "max_output_tokens": ask.max_tokens or None, "model": ask.model, "output": output,
            "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": None, "summary": None}, "store": False,
            "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": usage(said) if said else None, "user": None, "metadata": {}}


def message_item(number, text, status):
    content = [] if text is None else [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": f"msg_double{number}", "type": "message", "status": status, "role": "assistant", "content": content}


def call_item(call, arguments, status):
    return {"id": f"fc_{call[0]}", "type": "function_call", "status": status, "call_id": call[0], "name": call[1], "arguments": arguments}


def reasoning_item(number):
    return {"id": f"rs_double{number}", "type": "reasoning", "summary": []}


def whole(ask, said, number, with_usage):
    output = [reasoning_item(number)] if said.reasoning else []
    if said.pieces:
        output.append(message_item(number, said.text, "completed"))
    output += [call_item(call, "".join(call[2]), "completed") for call in said.calls]
    return response(ask, number, "incomplete" if said.finish == "length" else "completed", output, said if with_usage else None)


class Numbered:
    """Events carry their place in the stream."""

    def __init__(self):
        self.count = 0

    def __call__(self, kind, **fields):
        data = {"type": kind, "sequence_number": self.count, **fields}
        self.count += 1
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def text_events(event, number, place, said):
    id = f"msg_double{number}"
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    yield "head", event("response.output_item.added", output_index=place, item=message_item(number, None, "in_progress"))
    yield "head", event("response.content_part.added", item_id=id, output_index=place, content_index=0, part=part)
    for piece in said.pieces:
        yield "content", event("response.output_text.delta", item_id=id, output_index=place, content_index=0, delta=piece, logprobs=[])
    yield "tail", event("response.output_text.done", item_id=id, output_index=place, content_index=0, text=said.text, logprobs=[])
    yield "tail", event("response.content_part.done", item_id=id, output_index=place, content_index=0, part=part | {"text": said.text})
    yield "tail", event("response.output_item.done", output_index=place, item=message_item(number, said.text, "completed"))


def call_events(event, place, call):
    id, arguments = f"fc_{call[0]}", "".join(call[2])
    yield "content", event("response.output_item.added", output_index=place, item=call_item(call, "", "in_progress"))
    for part in call[2]:
        yield "content", event("response.function_call_arguments.delta", item_id=id, output_index=place, delta=part)
    yield "tail", event("response.function_call_arguments.done", item_id=id, name=call[1], output_index=place, arguments=arguments)
    yield "tail", event("response.output_item.done", output_index=place, item=call_item(call, arguments, "completed"))


def events(ask, said, number, with_usage):
    event = Numbered()
    yield "head", event("response.created", response=response(ask, number, "in_progress", []))
    yield "head", event("response.in_progress", response=response(ask, number, "in_progress", []))
    place = 0
    if said.reasoning:
        yield "reasoning", event("response.output_item.added", output_index=0, item=reasoning_item(number))
        yield "reasoning", event("response.output_item.done", output_index=0, item=reasoning_item(number))
        place = 1
    if said.pieces:
        yield from text_events(event, number, place, said)
        place += 1
    for call in said.calls:
        yield from call_events(event, place, call)
        place += 1
    full = whole(ask, said, number, with_usage)
    yield "tail", event(f"response.{full['status']}", response=full)


def error(name, fault, detail="", param=None):
    status, headers, body = openai_chat.error(name, fault, detail, param)
    if name == "too-long":
        body = openai_chat.failure("Your input exceeds the context window of this model.", "invalid_request_error", "context_length_exceeded", "input")
    return status, headers, body


def error_event(name, number):
    event = Numbered()
    event.count = number
    if name == "failed-event":
        failed = response(Ask("", []), number, "failed", [], error={"code": "server_error", "message": "The server had an error."})
        return event("response.failed", response=failed)
    return event("error", code="server_is_overloaded", message="The server is currently overloaded.", param=None)
