"""Anthropic Messages (platform.claude.com/docs/en/api/messages), in its two versions: 2023-06-01, and 2026-10-21, which takes no
temperature, top_p or top_k and knows system messages. Keys come as x-api-key, or as a bearer's from the newer packages."""
import datetime
import json

from . import openai_chat
from .answers import Ask, Refused, only

NAME = "anthropic"
VERSIONS = ("2023-06-01", "2026-10-21")
FINISH = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use"}
KNOWN = {"model", "messages", "system", "max_tokens", "stream", "tools", "tool_choice", "temperature", "top_p", "top_k", "stop_sequences",
         "metadata", "thinking", "service_tier", "output_config", "cache_control"}


def key_of(exchange):
    return exchange.headers.get("x-api-key", "") or openai_chat.key_of(exchange)


def model_of(exchange, body):
    if exchange.method != "POST" or not exchange.path.endswith("/v1/messages"):
        return None
    return body.get("model")


def block_text(block, asked):
    kind = block.get("type")
    if kind == "text":
        if not block["text"]:
            raise Refused("messages: text content blocks must be non-empty")
        return block["text"]
    if kind == "tool_use":
        only(block, {"type", "id", "name", "input", "cache_control"}, "messages")
        if not isinstance(block["input"], dict):
            raise Refused("messages.content.tool_use.input: Input should be a valid dictionary")
        asked.add(block["id"])
        return ""
    if kind == "tool_result":
        only(block, {"type", "tool_use_id", "content", "is_error", "cache_control"}, "messages")
        if block["tool_use_id"] not in asked:
            raise Refused("messages: unexpected `tool_use_id` found in `tool_result` blocks")
        content = block.get("content", "")
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    raise Refused(f"messages: Input tag '{kind}' found using 'type' does not match any of the expected tags")


def ask_of(exchange, body):
    only(body, KNOWN)
    version = exchange.headers.get("anthropic-version")
    if version not in VERSIONS:
        raise Refused("anthropic-version: header is required" if version is None else f"anthropic-version: {version} is not a valid version")
    if version != VERSIONS[0] and (gone := {"temperature", "top_p", "top_k"} & set(body)):
        raise Refused(f"{gone.pop()}: Extra inputs are not permitted")
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        raise Refused("max_tokens: Field required")
    system = body.get("system") or ""
    messages = [("system", system if isinstance(system, str) else "".join(part["text"] for part in system))] if system else []
    asked = set()
    for message in body.get("messages") or []:
        only(message, {"role", "content"}, "messages")
        role, content = message.get("role"), message.get("content")
        if role not in (("user", "assistant") if version == VERSIONS[0] else ("user", "assistant", "system")):
            raise Refused("messages: Unexpected role. The Messages API accepts a top-level `system` parameter, not 'system' as an input message role.")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(block_text(block, asked) for block in blocks)
        answers = any(block.get("type") == "tool_result" for block in blocks)
        messages.append(("tool" if answers else role, text))
    turns = [role for role, _ in messages if role != "system"]
    if not turns:
        raise Refused("messages: at least one message is required")
    if turns[0] != "user":
        raise Refused("messages: first message must use the \"user\" role")
    last = messages[-1]
    if last[0] == "assistant" and last[1] != last[1].rstrip():
        raise Refused("messages: final assistant content cannot end with trailing whitespace")
    if len(body.get("stop_sequences") or []) and any(not s.strip() for s in body["stop_sequences"]):
        raise Refused("stop_sequences: each stop sequence must contain non-whitespace")
    tools = [only(tool, {"name", "description", "input_schema", "type", "cache_control", "strict"}, "tools")["name"] for tool in body.get("tools") or []]
    for tool in body.get("tools") or []:
        if (tool.get("input_schema") or {}).get("type") != "object":
            raise Refused("tools.0.custom.input_schema.type: Field required")
    choice = only(body.get("tool_choice") or {"type": "auto"}, {"type", "name", "disable_parallel_tool_use"}, "tool_choice")
    forced = {"auto": "", "none": "", "any": "*"}.get(choice["type"], choice.get("name", ""))
    form = "output_config" in body and "format" in body["output_config"]
    return Ask(body["model"], messages, bool(body.get("stream")), True, [] if choice["type"] == "none" else tools, forced, form, body["max_tokens"])


def usage(said, output):
    return {"input_tokens": said.input_tokens - said.cached_tokens, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": said.cached_tokens, "output_tokens": output, "service_tier": "standard"}


def message(ask, number, content, finish, used):
    return {"id": f"msg_double{number}", "type": "message", "role": "assistant", "model": ask.model, "content": content,
            "stop_reason": finish, "stop_sequence": None, "usage": used}


def whole(ask, said, number, with_usage):
    content = [{"type": "thinking", "thinking": "".join(said.reasoning), "signature": "double"}] if said.reasoning else []
    content += [{"type": "text", "text": said.text}] if said.pieces else []
    content += [{"type": "tool_use", "id": "toolu_" + id, "name": name, "input": json.loads("".join(parts))} for id, name, parts in said.calls]
    used = usage(said, said.output_tokens) if with_usage else {"input_tokens": 0, "output_tokens": 0}
    return message(ask, number, content, FINISH[said.finish], used)


def event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


def block_events(index, kind, block, deltas, start="head"):
    yield start, event("content_block_start", index=index, content_block=block)
    for delta in deltas:
        yield kind, event("content_block_delta", index=index, delta=delta)
    yield "tail" if kind == "content" else "reasoning", event("content_block_stop", index=index)


def events(ask, said, number, with_usage):
    begun = usage(said, 1) if with_usage else {"input_tokens": 0, "output_tokens": 0}
    yield "head", event("message_start", message=message(ask, number, [], None, begun))
    yield "head", event("ping")
    index = 0
    if said.reasoning:
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in said.reasoning] + [{"type": "signature_delta", "signature": "double"}]
        yield from block_events(0, "reasoning", {"type": "thinking", "thinking": "", "signature": ""}, thoughts, "reasoning")
        index = 1
    if said.pieces:
        yield from block_events(index, "content", {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said.pieces])
        index += 1
    for id, name, parts in said.calls:
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *parts]]
        yield from block_events(index, "content", {"type": "tool_use", "id": "toolu_" + id, "name": name, "input": {}}, deltas, "content")
        index += 1
    used = {"output_tokens": said.output_tokens} if with_usage else {"output_tokens": 0}
    yield "tail", event("message_delta", delta={"stop_reason": FINISH[said.finish], "stop_sequence": None}, usage=used)
    yield "tail", event("message_stop")


def failure(type, text, details=None):
    error = {"type": type, "message": text} | ({"details": details} if details else {})
    return {"type": "error", "error": error, "request_id": "req_double"}


def error(name, fault, detail="", param=None):
    retry = {"retry-after": str(fault.after)}
    return {
        "rate-limit": (429, retry, failure("rate_limit_error", "This request would exceed your organization's rate limit.")),
        "rate-limit-bare": (429, {}, failure("rate_limit_error", "This request would exceed your organization's rate limit.")),
        "spend-limit": (429, {}, failure("rate_limit_error", "Your organization has reached its monthly spend limit.",
                                         {"error_code": "enforced_spend_limit_reached"})),
        "no-credit": (400, {}, failure("invalid_request_error", "Your credit balance is too low to access the Anthropic API. "
                                       "Please go to Plans & Billing to upgrade or purchase credits.")),
        "overloaded": (529, {}, failure("overloaded_error", "Overloaded")),
        "unavailable": (503, retry, failure("api_error", "Service unavailable")),
        "server-error": (500, {}, failure("api_error", "Internal server error")),
        "gateway-timeout": (504, {}, failure("timeout_error", "Request timed out")),
        "unauthorized": (401, {}, failure("authentication_error", "invalid x-api-key")),
        "forbidden": (403, {}, failure("permission_error", "Your API key does not have permission to use this resource.")),
        "not-found": (404, {}, failure("not_found_error", "model: not found")),
        "bad-request": (400, {}, failure("invalid_request_error", detail or "temperature: Input should be less than or equal to 1")),
        "too-long": (400, {}, failure("invalid_request_error", "prompt is too long: 200010 tokens > 200000 maximum")),
        "too-large": (413, {}, failure("request_too_large", "Request exceeds the maximum size")),
        "prefill-refused": (400, {}, failure("invalid_request_error", "This model does not support assistant message prefill. "
                                             "The conversation must end with a user message.")),
    }[name]


def error_event(name, number):
    return event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def limits(left):
    reset = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"request-id": f"req_{left}", "anthropic-organization-id": "double"}
    for kind, limit in (("requests", 10000), ("tokens", 2000000), ("input-tokens", 1600000), ("output-tokens", 400000)):
        headers |= {f"anthropic-ratelimit-{kind}-limit": str(limit), f"anthropic-ratelimit-{kind}-remaining": str(limit * left // 10000),
                    f"anthropic-ratelimit-{kind}-reset": reset}
    return headers
