"""The official openai, anthropic and google-genai packages, unmodified, against the doubles: what these packages accept is what Octant
may take for the closed APIs."""
import ssl

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from upstream_doubles import KEY, TEXT, WORDS, canonical

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}, "count": {"type": "integer"}}, "required": ["query"]}


@pytest.fixture(scope="module")
def openai_client(doubles):
    return openai.OpenAI(base_url=doubles.url("openai-chat"), api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def anthropic_client(doubles):
    return anthropic.Anthropic(base_url=doubles.address(), api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def gemini_client(doubles):
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=doubles.address(), timeout=60000))


def user(text="hello"):
    return [{"role": "user", "content": text}]


# ---- OpenAI Chat Completions ----

CHAT_TOOL = {"type": "function", "function": {"name": "search", "description": "finds", "parameters": SCHEMA}}


def test_chat(openai_client):
    answer = openai_client.chat.completions.create(model="double", messages=user())
    assert answer.choices[0].message.content == TEXT and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == WORDS and answer.usage.total_tokens == answer.usage.prompt_tokens + WORDS


def test_chat_stream(openai_client):
    chunks = list(openai_client.chat.completions.create(model="double", messages=user(), stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[-1].usage.completion_tokens == WORDS and not chunks[-1].choices
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_chat_length(openai_client):
    answer = openai_client.chat.completions.create(model="double", messages=user(), max_tokens=4)
    assert answer.choices[0].message.content == canonical(4) and answer.choices[0].finish_reason == "length"


def test_chat_tools(openai_client):
    ask = dict(model="double", messages=user("please call search"), tools=[CHAT_TOOL])
    answer = openai_client.chat.completions.create(**ask)
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls" and call.function.name == "search"
    with openai_client.chat.completions.stream(**ask) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
    told = [*ask["messages"], answer.choices[0].message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "found"}]
    assert openai_client.chat.completions.create(model="double", messages=told, tools=[CHAT_TOOL]).choices[0].message.content == TEXT


def test_chat_rate_limit_headers(openai_client):
    raw = openai_client.chat.completions.with_raw_response.create(model="double", messages=user())
    assert int(raw.headers["x-ratelimit-remaining-requests"]) < 10000 and raw.headers["x-ratelimit-reset-tokens"] == "1m0.5s"


@pytest.mark.parametrize("fault, error", [
    ("rate-limit", openai.RateLimitError), ("spend-limit", openai.RateLimitError), ("overloaded", openai.InternalServerError),
    ("unauthorized", openai.AuthenticationError), ("too-long", openai.BadRequestError), ("not-found", openai.NotFoundError),
    ("reset", openai.APIConnectionError), ("server-error", openai.InternalServerError)])
@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_openai_faults(openai_client, wire, fault, error):
    with pytest.raises(error) as caught:
        if wire == "chat":
            openai_client.chat.completions.create(model=f"double~{fault}~after=7", messages=user())
        else:
            openai_client.responses.create(model=f"double~{fault}~after=7", input="hello")
    if fault == "rate-limit":
        assert caught.value.response.headers["retry-after"] == "7"
    if fault == "spend-limit":
        assert caught.value.code == "insufficient_quota"


def test_chat_overloaded_event(openai_client):
    seen = []
    with pytest.raises(openai.APIError):
        for chunk in openai_client.chat.completions.create(model="double~overloaded-event~at=2", messages=user(), stream=True):
            seen.append(chunk.choices[0].delta.content or "")
    assert "".join(seen) == canonical(2)


def test_wrong_key(doubles):
    client = openai.OpenAI(base_url=doubles.url("openai-chat"), api_key="another", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="double", messages=user())


# ---- OpenAI Responses ----

RESPONSES_TOOL = {"type": "function", "name": "search", "description": "finds", "parameters": SCHEMA, "strict": False}


def test_responses(openai_client):
    answer = openai_client.responses.create(model="double", input="hello", instructions="Be short.")
    assert answer.output_text == TEXT and answer.status == "completed" and answer.usage.output_tokens == WORDS


def test_responses_stream(openai_client):
    with openai_client.responses.stream(model="double", input=[{"role": "user", "content": "hello"}]) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert said == TEXT == final.output_text and final.usage.output_tokens == WORDS


def test_responses_length(openai_client):
    answer = openai_client.responses.create(model="double", input="say 30 words", max_output_tokens=16)
    assert answer.output_text == canonical(16) and answer.incomplete_details.reason == "max_output_tokens"


def test_responses_tools(openai_client):
    ask = dict(model="double", input=[{"role": "user", "content": "call search"}], tools=[RESPONSES_TOOL])
    whole = openai_client.responses.create(**ask).output[0]
    assert (whole.type, whole.name) == ("function_call", "search")
    with openai_client.responses.stream(**ask) as stream:
        parts = "".join(event.delta for event in stream if event.type == "response.function_call_arguments.delta")
        assert parts == whole.arguments == stream.get_final_response().output[0].arguments
    told = [*ask["input"], {"type": "function_call", "call_id": whole.call_id, "name": whole.name, "arguments": whole.arguments},
            {"type": "function_call_output", "call_id": whole.call_id, "output": "found"}]
    assert openai_client.responses.create(model="double", input=told, tools=[RESPONSES_TOOL]).output_text == TEXT


def test_responses_failed_event(openai_client):
    events = list(openai_client.responses.create(model="double~failed-event~at=2", input="hello", stream=True))
    assert events[-1].type == "response.failed" and events[-1].response.error.code == "server_error"


# ---- Anthropic Messages ----

ANTHROPIC_TOOL = {"name": "search", "description": "finds", "input_schema": SCHEMA}


def messages(client, **more):
    return client.messages.create(**{"model": "double", "max_tokens": 100, "messages": user(), **more})


def test_messages(anthropic_client):
    answer = messages(anthropic_client, system="Be short.")
    assert answer.content[0].text == TEXT and answer.stop_reason == "end_turn" and answer.usage.output_tokens == WORDS
    assert messages(anthropic_client, max_tokens=4).stop_reason == "max_tokens"


def test_messages_cached_tokens_are_apart(anthropic_client):
    usage = messages(anthropic_client, model="double~cached=3").usage
    assert (usage.cache_read_input_tokens, usage.input_tokens) == (3, messages(anthropic_client).usage.input_tokens - 3)


def test_messages_stream(anthropic_client):
    with anthropic_client.messages.stream(model="double", max_tokens=100, messages=user()) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said == TEXT == final.content[0].text and final.usage.output_tokens == WORDS and final.stop_reason == "end_turn"


def test_messages_tools(anthropic_client):
    ask = dict(model="double", max_tokens=100, messages=user("call search"), tools=[ANTHROPIC_TOOL])
    whole = anthropic_client.messages.create(**ask)
    assert whole.stop_reason == "tool_use" and whole.content[0].input["query"] == "é search"
    with anthropic_client.messages.stream(**ask) as stream:
        assert stream.get_final_message().content[0].input == whole.content[0].input
    told = [*ask["messages"], {"role": "assistant", "content": [whole.content[0].model_dump(include={"type", "id", "name", "input"})]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": whole.content[0].id, "content": "found"}]}]
    assert messages(anthropic_client, messages=told, tools=[ANTHROPIC_TOOL]).content[0].text == TEXT


def test_messages_thinking(anthropic_client):
    with anthropic_client.messages.stream(model="double~reasoning~at=2", max_tokens=100, messages=user()) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"] and final.content[1].text == TEXT


@pytest.mark.parametrize("fault, status", [("rate-limit", 429), ("spend-limit", 429), ("no-credit", 400), ("overloaded", 529), ("unauthorized", 401),
                                           ("too-long", 400), ("too-large", 413), ("not-found", 404), ("server-error", 500)])
def test_anthropic_faults(anthropic_client, fault, status):
    with pytest.raises(anthropic.APIStatusError) as caught:
        messages(anthropic_client, model=f"double~{fault}")
    assert caught.value.status_code == status and caught.value.body["type"] == "error"
    assert ("retry-after" in caught.value.response.headers) == (fault == "rate-limit")


def test_anthropic_overloaded_event(anthropic_client):
    with pytest.raises(anthropic.APIStatusError) as caught:
        for _ in messages(anthropic_client, model="double~overloaded-event", stream=True):
            pass
    assert caught.value.body["error"]["type"] == "overloaded_error"


# ---- Gemini ----

def generate(client, contents="hello", model="double", **config):
    return client.models.generate_content(model=model, contents=contents, config=types.GenerateContentConfig(**config))


GEMINI_TOOL = types.Tool(function_declarations=[types.FunctionDeclaration(name="search", description="finds", parameters_json_schema=SCHEMA)])
BY_HAND = types.AutomaticFunctionCallingConfig(disable=True)


def test_generate(gemini_client):
    answer = generate(gemini_client, system_instruction="Be short.")
    assert answer.text == TEXT and answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata.candidates_token_count == WORDS
    assert generate(gemini_client, max_output_tokens=4).candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def test_generate_stream(gemini_client):
    chunks = list(gemini_client.models.generate_content_stream(model="double", contents="hello"))
    assert "".join(chunk.text or "" for chunk in chunks) == TEXT
    assert chunks[-1].usage_metadata.candidates_token_count == WORDS


def test_generate_tools(gemini_client):
    config = types.GenerateContentConfig(tools=[GEMINI_TOOL], automatic_function_calling=BY_HAND)
    whole = gemini_client.models.generate_content(model="double", contents="call search", config=config)
    assert whole.function_calls[0].name == "search" and whole.function_calls[0].args["query"] == "é search"
    streamed = list(gemini_client.models.generate_content_stream(model="double", contents="call search", config=config))
    assert [call.args for chunk in streamed for call in chunk.function_calls or []] == [whole.function_calls[0].args]
    told = [types.Content(role="user", parts=[types.Part(text="call search")]), whole.candidates[0].content,
            types.Content(role="user", parts=[types.Part.from_function_response(name="search", response={"found": 1})])]
    assert gemini_client.models.generate_content(model="double", contents=told, config=config).text == TEXT


@pytest.mark.parametrize("fault, code, status", [
    ("rate-limit", 429, "RESOURCE_EXHAUSTED"), ("overloaded", 503, "UNAVAILABLE"), ("unauthorized", 400, "INVALID_ARGUMENT"),
    ("forbidden", 403, "PERMISSION_DENIED"), ("too-long", 400, "INVALID_ARGUMENT"), ("gateway-timeout", 504, "DEADLINE_EXCEEDED")])
def test_gemini_faults(gemini_client, fault, code, status):
    with pytest.raises(genai_errors.APIError) as caught:
        generate(gemini_client, model=f"double~{fault}")
    assert (caught.value.code, caught.value.status) == (code, status)


# ---- continuing a partial answer, each API ----

PARTIAL = "alpha1 βeta2 gam"
REST = TEXT[len(PARTIAL):]


def go_on(wire, clients, model, turns):
    openai_client, anthropic_client, gemini_client = clients
    plain = [{"role": role, "content": text} for role, text in turns]
    if wire == "chat":
        literally = {"continue_final_message": True, "add_generation_prompt": False} if turns[-1][0] == "assistant" else {}
        return openai_client.chat.completions.create(model=model, messages=plain, extra_body=literally).choices[0].message.content
    if wire == "responses":
        return openai_client.responses.create(model=model, input=plain).output_text
    if wire == "anthropic":
        return messages(anthropic_client, model=model, messages=plain).content[0].text
    roles = {"user": "user", "assistant": "model"}
    return generate(gemini_client, [types.Content(role=roles[role], parts=[types.Part(text=text)]) for role, text in turns], model).text


WIRES = ["chat", "responses", "anthropic", "gemini"]


@pytest.fixture(scope="module")
def clients(openai_client, anthropic_client, gemini_client):
    return openai_client, anthropic_client, gemini_client


@pytest.mark.parametrize("wire", WIRES)
def test_prefill_is_continued_literally(clients, wire):
    assert go_on(wire, clients, "double", [("user", "hello"), ("assistant", PARTIAL)]) == REST
    assert go_on(wire, clients, "double", [("user", "hello"), ("assistant", "another story")]) == " " + TEXT
    assert go_on(wire, clients, "double~restarts", [("user", "hello"), ("assistant", PARTIAL)]) == TEXT


def test_chat_begins_anew_unless_told(openai_client):
    told = [*user(), {"role": "assistant", "content": PARTIAL}]
    assert openai_client.chat.completions.create(model="double", messages=told).choices[0].message.content == TEXT


@pytest.mark.parametrize("wire", WIRES)
def test_prefill_may_be_refused(clients, wire):
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError, genai_errors.ClientError)):
        go_on(wire, clients, "double~prefill-refused", [("user", "hello"), ("assistant", PARTIAL)])
    assert go_on(wire, clients, "double~prefill-refused", [("user", "hello")]) == TEXT


@pytest.mark.parametrize("wire", WIRES)
def test_user_turn_repeats_an_overlap(clients, wire):
    said = go_on(wire, clients, "double", [("user", "hello"), ("assistant", PARTIAL), ("user", "Please go on exactly where you stopped.")])
    assert said == PARTIAL[-9:] + REST


# ---- what the doubles themselves promise ----

def test_the_log_has_all_but_the_key(doubles, openai_client):
    openai_client.chat.completions.create(model="double", messages=user("a marker: 4711"))
    line = doubles.requests()[-1]
    assert "a marker: 4711" in line["body"] and line["path"] == "/v1/chat/completions" and line["key_ok"]
    assert KEY not in doubles.log_path.read_text()


def test_tls_listeners(doubles):
    def ask(listener):
        context = ssl.create_default_context(cafile=doubles.ca)
        client = openai.OpenAI(base_url=doubles.url("openai-chat", listener), api_key=KEY, max_retries=0, http_client=openai.DefaultHttpxClient(verify=context))
        return client.chat.completions.create(model="double", messages=user()).choices[0].message.content

    assert ask("good") == TEXT
    for listener in ("self-signed", "wrong-name", "expired"):
        with pytest.raises(openai.APIConnectionError):
            ask(listener)


def test_what_an_api_does_not_know_is_refused(openai_client, anthropic_client):
    with pytest.raises(openai.BadRequestError):
        openai_client.chat.completions.create(model="double", messages=user(), extra_body={"colour": "red"})
    with pytest.raises(anthropic.BadRequestError):
        messages(anthropic_client, extra_body={"colour": "red"})
