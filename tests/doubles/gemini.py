"""Gemini generateContent and streamGenerateContent, v1beta (ai.google.dev/api/generate-content)."""
import json
import re
import urllib.parse

from .answers import Ask, Refused, only

NAME = "gemini"
FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tools": "STOP"}
PATH = re.compile(r".*/(?:models|tunedModels)/([^/:]+):(generateContent|streamGenerateContent)$")
KNOWN = {"contents", "systemInstruction", "system_instruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent",
         "labels", "store", "serviceTier"}
GENERATION = {"temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "seed", "candidateCount", "responseMimeType", "responseSchema",
              "responseJsonSchema", "thinkingConfig", "presencePenalty", "frequencyPenalty", "responseModalities", "responseLogprobs", "logprobs"}


def key_of(exchange):
    return exchange.headers.get("x-goog-api-key", "") or urllib.parse.parse_qs(exchange.query).get("key", [""])[0]


def model_of(exchange, body):
    found = PATH.fullmatch(urllib.parse.unquote(exchange.path))
    return found.group(1) if found and exchange.method == "POST" else None


def part_text(part):
    only(part, {"text", "functionCall", "functionResponse", "thought", "thoughtSignature"}, "contents.parts")
    if "functionResponse" in part:
        response = only(part["functionResponse"], {"name", "response", "id"}, "functionResponse")
        if not isinstance(response.get("response"), dict):
            raise Refused("Invalid value at 'contents.parts.function_response.response'")
        return json.dumps(response["response"])
    if "functionCall" in part:
        if not isinstance(part["functionCall"].get("args", {}), dict):
            raise Refused("Invalid value at 'contents.parts.function_call.args'")
        return ""
    if not isinstance(part.get("text"), str):
        raise Refused("Invalid JSON payload received. contents.parts.data: required one_of 'data' must have one initialized field")
    return part["text"]


def ask_of(exchange, body):
    only(body, KNOWN)
    system = body.get("systemInstruction") or body.get("system_instruction") or {}
    messages = [("system", "".join(part_text(part) for part in system["parts"]))] if system else []
    for content in body.get("contents") or []:
        only(content, {"role", "parts"}, "contents")
        if content.get("role", "user") not in ("user", "model"):
            raise Refused("Please use a valid role: user, model.")
        if not content.get("parts"):
            raise Refused("contents.parts must not be empty.")
        answers = any("functionResponse" in part for part in content["parts"])
        role = "tool" if answers else {"user": "user", "model": "assistant"}[content.get("role", "user")]
        messages.append((role, "".join(part_text(part) for part in content["parts"])))
    if not any(role != "system" for role, _ in messages):
        raise Refused("contents is not specified")
    config = only(body.get("generationConfig") or {}, GENERATION, "generationConfig")
    tools = []
    for tool in body.get("tools") or []:
        for declared in only(tool, {"functionDeclarations"}, "tools")["functionDeclarations"]:
            only(declared, {"name", "description", "parameters", "parametersJsonSchema", "parameters_json_schema", "response"}, "functionDeclarations")
            tools.append(declared["name"])
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    mode, allowed = calling.get("mode", "AUTO"), calling.get("allowedFunctionNames") or ["*"]
    if mode not in ("AUTO", "ANY", "NONE", "VALIDATED"):
        raise Refused("Invalid value at 'tool_config.function_calling_config.mode'")
    streams = urllib.parse.unquote(exchange.path).endswith(":streamGenerateContent")
    if streams and urllib.parse.parse_qs(exchange.query).get("alt") != ["sse"]:
        raise Refused("this double streams with alt=sse only")
    return Ask(model_of(exchange, body), messages, streams, True, [] if mode == "NONE" else tools, allowed[0] if mode == "ANY" else "",
               config.get("responseMimeType", "text/plain") == "application/json", config.get("maxOutputTokens") or 0)


def usage(said):
    used = {"promptTokenCount": said.input_tokens, "candidatesTokenCount": said.output_tokens - len(said.reasoning),
            "totalTokenCount": said.input_tokens + said.output_tokens,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": said.input_tokens}]}
    if said.cached_tokens:
        used["cachedContentTokenCount"] = said.cached_tokens
    if said.reasoning:
        used["thoughtsTokenCount"] = len(said.reasoning)
    return used


def response(ask, number, parts, finish=None, used=None):
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    body = {"candidates": [candidate], "modelVersion": ask.model, "responseId": f"double{number}"}
    return body | ({"usageMetadata": used} if used else {})


def call_part(call):
    return {"functionCall": {"name": call[1], "args": json.loads("".join(call[2]))}}


def whole(ask, said, number, with_usage):
    parts = [{"text": "".join(said.reasoning), "thought": True}] if said.reasoning else []
    parts += [{"text": said.text}] if said.pieces else []
    return response(ask, number, parts + [call_part(call) for call in said.calls], FINISH[said.finish], usage(said) if with_usage else None)


def event(data):
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\r\n\r\n"


def events(ask, said, number, with_usage):
    begun = {"promptTokenCount": said.input_tokens, "totalTokenCount": said.input_tokens} if with_usage else None
    for piece in said.reasoning:
        yield "reasoning", event(response(ask, number, [{"text": piece, "thought": True}], None, begun))
    for piece in said.pieces:
        yield "content", event(response(ask, number, [{"text": piece}], None, begun))
    for call in said.calls:
        yield "content", event(response(ask, number, [call_part(call)], None, begun))
    yield "tail", event(response(ask, number, [{"text": ""}], FINISH[said.finish], usage(said) if with_usage else None))


def failure(code, status, message, details=()):
    error = {"code": code, "message": message, "status": status}
    return {"error": error | ({"details": list(details)} if details else {})}


def info(kind, **fields):
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def error(name, fault, detail="", param=None):
    retry = info("RetryInfo", retryDelay=f"{fault.after}s")
    day = info("QuotaFailure", violations=[{"quotaMetric": "generativelanguage.googleapis.com/generate_requests_per_model_per_day",
                                            "quotaId": "GenerateRequestsPerDayPerProjectPerModel"}])
    exhausted = "You exceeded your current quota, please check your plan and billing details."
    return {
        "rate-limit": (429, {}, failure(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", [retry])),
        "rate-limit-bare": (429, {}, failure(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")),
        "spend-limit": (429, {}, failure(429, "RESOURCE_EXHAUSTED", exhausted, [day])),
        "no-credit": (402, {}, failure(402, "FAILED_PRECONDITION", "Billing is not enabled for this project.")),
        "overloaded": (503, {}, failure(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")),
        "unavailable": (503, {"retry-after": str(fault.after)}, failure(503, "UNAVAILABLE", "The service is currently unavailable.")),
        "server-error": (500, {}, failure(500, "INTERNAL", "An internal error has occurred.")),
        "gateway-timeout": (504, {}, failure(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")),
        "unauthorized": (400, {}, failure(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
                                          [info("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com")])),
        "forbidden": (403, {}, failure(403, "PERMISSION_DENIED", "The caller does not have permission")),
        "not-found": (404, {}, failure(404, "NOT_FOUND", "models/double is not found for API version v1beta.")),
        "bad-request": (400, {}, failure(400, "INVALID_ARGUMENT", detail or "Request contains an invalid argument.")),
        "too-long": (400, {}, failure(400, "INVALID_ARGUMENT", "The input token count (1048580) exceeds the maximum number of tokens allowed (1048576).")),
        "too-large": (413, {}, failure(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.")),
        "prefill-refused": (400, {}, failure(400, "INVALID_ARGUMENT", "Requests ending with a model turn are not supported.")),
    }[name]


def error_event(name, number):
    return event(failure(503, "UNAVAILABLE", "The model is overloaded. Please try again later."))


def limits(left):
    return {"server-timing": "gfet4t7; dur=12"}  # this API tells no limits in headers
