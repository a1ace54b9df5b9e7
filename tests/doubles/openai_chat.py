"""OpenAI Chat Completions (platform.openai.com/docs/api-reference/chat)."""
import json
import time

from .answers import Ask, Refused, only

NAME = "openai-chat"
FINISH = {"stop": "stop", "length": "length", "tools": "tool_calls"}
LIKE_VLLM = {"continue_final_message", "add_generation_prompt"}  # vLLM, SGLang and others go on from the last message where this says so
KNOWN = {"model", "messages", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "max_tokens",
         "max_completion_tokens", "temperature", "top_p", "stop", "seed", "n", "response_format", "user", "frequency_penalty",
         "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "metadata", "store", "service_tier", "reasoning_effort",
         "safety_identifier", "prompt_cache_key", *LIKE_VLLM}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def key_of(exchange):
    scheme, _, key = exchange.headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def model_of(exchange, body):
    if exchange.method != "POST" or not exchange.path.endswith("/chat/completions"):
        return None
    return body.get("model")


def text_of(content):
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def ask_of(exchange, body):
    only(body, KNOWN)
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Refused("Invalid 'messages': expected a non-empty array", "messages")
    messages, called = [], set()
    for message in body["messages"]:
        only(message, {"role", "content", "tool_calls", "tool_call_id", "name", "refusal", "audio"}, "messages")
        if message.get("role") not in ROLES:
            raise Refused(f"Invalid role {message.get('role')!r}", "messages")
        called |= {call["id"] for call in message.get("tool_calls") or []}
        if message["role"] == "tool" and message.get("tool_call_id") not in called:
            raise Refused("messages with role 'tool' must be a response to a preceding message with 'tool_calls'", "messages")
        messages.append((ROLES[message["role"]], text_of(message.get("content"))))
    if body.get("stream_options") and not body.get("stream"):
        raise Refused("The 'stream_options' parameter is only allowed when 'stream' is enabled", "stream_options")
    tools = [only(tool["function"], {"name", "description", "parameters", "strict"}, "tools")["name"] for tool in body.get("tools") or []]
    choice = body.get("tool_choice", "auto")
    if "tool_choice" in body and not tools:
        raise Refused("'tool_choice' is only allowed when 'tools' are specified", "tool_choice")
    forced = {"auto": "", "none": "", "required": "*"}[choice] if isinstance(choice, str) else choice["function"]["name"]
    form = (body.get("response_format") or {}).get("type", "text")
    if form not in ("text", "json_object", "json_schema"):
        raise Refused(f"Invalid response_format type {form!r}", "response_format")
    return Ask(body["model"], messages, bool(body.get("stream")), bool((body.get("stream_options") or {}).get("include_usage")),
               [] if choice == "none" else tools, forced, form != "text",
               body.get("max_completion_tokens") or body.get("max_tokens") or 0, not body.get("continue_final_message"))


def usage(said):
    return {"prompt_tokens": said.input_tokens, "completion_tokens": said.output_tokens,
            "total_tokens": said.input_tokens + said.output_tokens,
            "prompt_tokens_details": {"cached_tokens": said.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": len(said.reasoning)}}


def whole(ask, said, number, with_usage):
    message = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.calls:
        message["tool_calls"] = [{"id": id, "type": "function", "function": {"name": name, "arguments": "".join(parts)}}
                                 for id, name, parts in said.calls]
    body = {"id": f"chatcmpl-double{number}", "object": "chat.completion", "created": int(time.time()), "model": ask.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[said.finish]}],
            "service_tier": "default", "system_fingerprint": "fp_double"}
    return body | ({"usage": usage(said)} if with_usage else {})


def event(data):
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def events(ask, said, number, with_usage):
    base = {"id": f"chatcmpl-double{number}", "object": "chat.completion.chunk", "created": int(time.time()), "model": ask.model,
            "service_tier": "default", "system_fingerprint": "fp_double"}
    if ask.stream_usage:
        base["usage"] = None

    def chunk(delta, finish=None):
        return event(base | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    yield "head", chunk({"role": "assistant", "content": None if said.calls else "", "refusal": None})
    for piece in said.reasoning:  # as vLLM and others say it
        yield "reasoning", chunk({"reasoning_content": piece})
    for piece in said.pieces:
        yield "content", chunk({"content": piece})
    for index, (id, name, parts) in enumerate(said.calls):
        yield "content", chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]})
        for part in parts:
            yield "content", chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield "tail", chunk({}, FINISH[said.finish])
    if ask.stream_usage and with_usage:
        yield "tail", event(base | {"choices": [], "usage": usage(said)})
    yield "tail", b"data: [DONE]\n\n"


def failure(message, type, code=None, param=None):
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def retry(fault):
    return {"retry-after": str(fault.after)}


def error(name, fault, detail="", param=None):
    """(status, headers, body)"""
    return {
        "rate-limit": (429, retry(fault), failure("Rate limit reached for requests", "requests", "rate_limit_exceeded")),
        "rate-limit-bare": (429, {}, failure("Rate limit reached for tokens", "tokens", "rate_limit_exceeded")),
        "spend-limit": (429, {}, failure("You exceeded your current quota, please check your plan and billing details.",
                                         "insufficient_quota", "insufficient_quota")),
        "no-credit": (429, {}, failure("The organization has no credits left.", "insufficient_quota", "credit_balance_exhausted")),
        "overloaded": (503, {}, failure("The server is currently overloaded.", "server_error", "server_is_overloaded")),
        "unavailable": (503, retry(fault), failure("Slow down.", "server_error", "slow_down")),
        "server-error": (500, {}, failure("The server had an error while processing your request.", "server_error")),
        "gateway-timeout": (504, {}, failure("Timed out.", "server_error")),
        "unauthorized": (401, {}, failure("Incorrect API key provided.", "invalid_request_error", "invalid_api_key")),
        "forbidden": (403, {}, failure("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory")),
        "not-found": (404, {}, failure("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found")),
        "bad-request": (400, {}, failure(detail or "Invalid value.", "invalid_request_error", "invalid_value", param)),
        "too-long": (400, {}, failure("This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens.",
                                      "invalid_request_error", "context_length_exceeded", "messages")),
        "too-large": (413, {}, failure("Request too large.", "invalid_request_error")),
        # OpenAI's own models never say so; proxies before others pass it on
        "prefill-refused": (400, {}, failure("This model does not support assistant message prefill. "
                                             "The conversation must end with a user message.", "invalid_request_error")),
    }[name]


def error_event(name, number):
    return event(failure("The server is currently overloaded.", "server_error", "server_is_overloaded"))


def limits(left):
    return {"x-request-id": f"req_{left}", "openai-processing-ms": "12",
            "x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": str(left), "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": "2000000", "x-ratelimit-remaining-tokens": str(left * 200), "x-ratelimit-reset-tokens": "1m0.5s" if left else "500ms"}
