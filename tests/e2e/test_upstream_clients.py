"""The official openai and anthropic packages, unmodified, against Octant, when upstreams serve: any client format over any upstream's, and
the answer says who served it, in a header and a field."""
import json

import anthropic
import openai
import pytest

from outside import Site, key_of
from upstream_doubles import APIS, TEXT, WORDS, canonical

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}, "count": {"type": "integer"}}, "required": ["query"]}
CHAT_TOOL = {"type": "function", "function": {"name": "search", "description": "finds", "parameters": SCHEMA}}
MESSAGES_TOOL = {"name": "search", "description": "finds", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def site(doubles):
    upstreams = {api: {"api": api, "base-url": doubles.url(api), "model": api} for api in APIS}
    upstreams["second"] = {"api": "anthropic", "base-url": doubles.url("anthropic"), "model": "second"}
    policy = {"upstreams": upstreams, "privacy": {"keys": {"us": "may-leave"}},
              "routes": [{"name": api, "match": {"models": [api]}, "upstreams": [api, "second"], "midstream": "continue"} for api in APIS]}
    with Site(policy, keys=["us"]) as running:
        yield running


@pytest.fixture(scope="module")
def chat(site):
    client = openai.OpenAI(base_url=site.http + "/v1", api_key=key_of("us"), max_retries=0, timeout=240)
    return client.chat.completions


@pytest.fixture(scope="module")
def messages(site):
    return anthropic.Anthropic(base_url=site.http, api_key=key_of("us"), max_retries=0, timeout=240).messages


@pytest.fixture(autouse=True)
def no_faults(doubles):
    yield
    doubles.control("DELETE")


def user(text="hello"):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("api", APIS)
def test_openai_whole(chat, api):
    raw = chat.with_raw_response.create(model=api, messages=user())
    answer = raw.parse()
    assert raw.headers["octant-served-by"] == api
    assert answer.choices[0].message.content == TEXT and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == WORDS and answer.usage.prompt_tokens > 0
    assert answer.octant["served_by"] == api
    assert answer.octant["segments"] == [{"by": api, "tokens": WORDS}]


@pytest.mark.parametrize("api", APIS)
def test_openai_stream(chat, api):
    chunks = list(chat.create(model=api, messages=user(), stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[0].octant["served_by"] == api
    assert chunks[-1].usage.completion_tokens == WORDS and chunks[-1].octant["segments"][0]["by"] == api


@pytest.mark.parametrize("api", APIS)
def test_openai_tools(chat, api):
    ask = dict(model=api, messages=user("call search"), tools=[CHAT_TOOL])
    answer = chat.create(**ask).choices[0]
    call = answer.message.tool_calls[0]
    assert answer.finish_reason == "tool_calls" and call.function.name == "search"
    assert json.loads(call.function.arguments) == {"query": "é search", "count": 7}
    with chat.stream(**ask) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert json.loads(streamed.function.arguments) == json.loads(call.function.arguments) and streamed.id
    told = [*user("call search"), answer.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "found"}]
    assert chat.create(model=api, messages=told, tools=[CHAT_TOOL]).choices[0].message.content == TEXT


@pytest.mark.parametrize("api", APIS)
def test_openai_length(chat, api):
    answer = chat.create(model=api, messages=user("say 40 words"), max_tokens=20)
    assert answer.choices[0].message.content == canonical(20) and answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("api", APIS)
def test_anthropic_whole(messages, api):
    raw = messages.with_raw_response.create(model=api, max_tokens=100, messages=user(), system="Be short.")
    answer = raw.parse()
    assert raw.headers["octant-served-by"] == api
    assert answer.content[0].text == TEXT and answer.stop_reason == "end_turn" and answer.usage.output_tokens == WORDS
    assert answer.octant["served_by"] == api


@pytest.mark.parametrize("api", APIS)
def test_anthropic_stream(messages, api):
    with messages.stream(model=api, max_tokens=100, messages=user()) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said == TEXT == final.content[0].text and final.stop_reason == "end_turn" and final.usage.output_tokens == WORDS


@pytest.mark.parametrize("api", APIS)
def test_anthropic_tools(messages, api):
    ask = dict(model=api, max_tokens=100, messages=user("call search"), tools=[MESSAGES_TOOL])
    answer = messages.create(**ask)
    assert answer.stop_reason == "tool_use", answer
    call = next(block for block in answer.content if block.type == "tool_use")
    assert call.name == "search" and call.input == {"query": "é search", "count": 7}
    with messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert next(block for block in final.content if block.type == "tool_use").input == call.input
    told = [*user("call search"), {"role": "assistant", "content": [call.model_dump(include={"type", "id", "name", "input"})]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "found"}]}]
    assert messages.create(model=api, max_tokens=100, messages=told, tools=[MESSAGES_TOOL]).content[0].text == TEXT


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "gemini"])
def test_a_switch_in_the_middle_is_told(doubles, chat, messages, api):
    doubles.fault(api, "cut", at=5)
    chunks = list(chat.create(model=api, messages=user(), stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert [segment["by"] for segment in chunks[-1].octant["segments"]] == [api, "second"]
    assert [c.octant["served_by"] for c in chunks[:-1] if getattr(c, "octant", None)] == [api, "second"]
    with messages.stream(model=api, max_tokens=100, messages=user()) as stream:
        assert "".join(stream.text_stream) == TEXT


@pytest.mark.parametrize("api", APIS)
def test_errors_are_of_the_clients_format(doubles, chat, messages, api):
    doubles.fault(api, "bad-request")
    with pytest.raises(openai.BadRequestError):
        chat.create(model=api, messages=user())
    with pytest.raises(anthropic.BadRequestError):
        messages.create(model=api, max_tokens=100, messages=user())


def test_a_broken_answer_is_an_error_to_both(doubles, chat, messages):
    """No clean end: an openai client gets an APIError while it streams, an anthropic one an error event."""
    doubles.fault("gemini", "cut", at=5)
    doubles.fault("second", "cut", at=0)
    said = ""
    with pytest.raises(openai.APIError):
        for chunk in chat.create(model="gemini", messages=user(), stream=True):
            said += chunk.choices[0].delta.content or ""
    assert said == canonical(5)
    with pytest.raises(anthropic.APIError):
        for _ in messages.create(model="gemini", max_tokens=100, messages=user(), stream=True):
            pass
