"""Answers that are held to a form, by the official openai and grpc packages: what a random model says at temperature 1 parses and
is valid by the packages jsonschema and pydantic, in streams, several at once, and after a rank died in the middle."""
import concurrent.futures
import enum
import json
import os
import re
import signal
import threading
from typing import Literal, Optional, Union

import grpc
import jsonschema
import openai
import pydantic
import pytest

from cluster import Cluster, wait_for
from test_failure import group_states
from test_grpc import Inference

HI = [{"role": "user", "content": "Describe a ticket as JSON."}]
TICKET = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 3, "maxLength": 24},
        "priority": {"enum": ["low", "high", 3, None]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,6}$"}, "minItems": 1, "maxItems": 3},
        "parent": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/parent"}]},
    },
    "required": ["title", "priority", "score", "tags", "parent"],
    "additionalProperties": False,
    "$defs": {"parent": {"type": "object", "properties": {"id": {"type": "integer", "minimum": 1, "maximum": 40}}, "required": ["id"],
                         "additionalProperties": False}},
}


class Kind(enum.Enum):
    bug = "bug"
    wish = "wish"


class Step(pydantic.BaseModel):
    count: int = pydantic.Field(ge=0, lt=100)
    kind: Kind


class Answer(pydantic.BaseModel):
    verdict: Literal["yes", "no"]
    steps: list[Step] = pydantic.Field(min_length=1, max_length=2)
    note: Optional[str] = pydantic.Field(max_length=12)
    either: Union[bool, int]


def schema_format(schema, strict=True):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def connect(cluster):
    return openai.OpenAI(base_url=cluster.http + "/v1", api_key="unused", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def client(cluster):
    return connect(cluster)


def chat(client, **more):
    return client.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 1500, "seed": 1, "temperature": 1, **more})


def check(text, schema=TICKET):
    jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)


def test_every_answer_is_valid(client):
    def ask(seed):
        return chat(client, seed=seed, n=2, temperature=seed % 3, top_p=0.9 if seed % 2 else 1, frequency_penalty=0.5 * (seed % 2),
                    response_format=schema_format(TICKET))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(8)))
    texts = [choice.message.content for answer in answers for choice in answer.choices]
    assert all(choice.finish_reason == "stop" for answer in answers for choice in answer.choices)
    for text in texts:
        check(text)
    assert len(set(texts)) > 8
    assert ask(1).choices[0].message.content == answers[1].choices[0].message.content


def test_parse_with_pydantic(client):
    for seed in range(4):
        answer = client.chat.completions.parse(model="tiny", messages=HI, seed=seed, temperature=1, max_tokens=1000, response_format=Answer)
        assert isinstance(answer.choices[0].message.parsed, Answer)


def test_a_stream_says_the_same(client):
    whole = chat(client, response_format=schema_format(TICKET), logprobs=True, top_logprobs=2)
    with client.chat.completions.create(model="tiny", messages=HI, max_tokens=1500, seed=1, temperature=1, stream=True,
                                        response_format=schema_format(TICKET, strict=False)) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content
    said = whole.choices[0].logprobs.content
    assert bytes(byte for item in said for byte in item.bytes).decode() == text
    assert any(item.logprob < item.top_logprobs[-1].logprob for item in said)  # the mask's choice, not the model's


def test_json_object(client):
    def ask(**more):
        return chat(client, response_format={"type": "json_object"}, logit_bias={str(ord("}")): 8}, **more).choices[0]
    ended = [choice for choice in (ask(seed=seed) for seed in range(6)) if choice.finish_reason == "stop"]
    assert ended and all(isinstance(json.loads(choice.message.content), dict) for choice in ended)
    cut = ask(max_tokens=1)
    assert cut.finish_reason == "length" and cut.message.content.startswith("{")


def test_stop_texts_cut_as_ever(client):
    whole = chat(client, response_format=schema_format(TICKET)).choices[0].message.content
    cut = chat(client, response_format=schema_format(TICKET), stop=["priority"]).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == whole.split("priority")[0]


def test_the_fields_of_vllm(client):
    def text(**more):
        return chat(client, extra_body=more).choices[0].message.content
    for field in ({"guided_choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}):
        assert text(**field) in ("yes", "no")
    for field in ({"guided_regex": r"[A-Z]{2}-\d{3}"}, {"structured_outputs": {"regex": r"[A-Z]{2}-\d{3}"}}):
        assert re.fullmatch(r"[A-Z]{2}-\d{3}", text(**field))
    small = {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}
    for field in ({"guided_json": small}, {"guided_json": json.dumps(small)}, {"structured_outputs": {"json": small}}):
        check(text(**field), small)


@pytest.mark.parametrize("fields, param, said", [
    ({"response_format": schema_format({"properties": {"a": {"type": "object", "patternProperties": {}}}})}, "response_format",
     "at $.properties.a: 'patternProperties' is not supported"),
    ({"response_format": schema_format({"items": {"$ref": "#/nowhere"}})}, "response_format", "at $.items: '$ref' is '#/nowhere'"),
    ({"extra_body": {"guided_regex": "(?!a)"}}, "guided_regex", "at byte"),
    ({"extra_body": {"guided_choice": []}}, "guided_choice", "at least one"),
    ({"extra_body": {"guided_choice": ["a"], "guided_regex": "a"}}, "guided_choice", "leave one of them out"),
    ({"extra_body": {"structured_outputs": {"grammar": "root ::= a"}}}, "structured_outputs", "structured_outputs.grammar"),
    ({"response_format": {"type": "json_object"}, "extra_body": {"ignore_eos": True}}, "response_format", "contradict"),
])
def test_what_cannot_be_is_refused(client, fields, param, said):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **fields)
    assert caught.value.param == param and said in caught.value.message, caught.value.message


def function(name, parameters=None):
    return {"type": "function", "function": {"name": name, **({"parameters": parameters, "strict": True} if parameters else {})}}


def test_calls_that_are_forced(client, cluster):
    tools, named = [function("other"), function("file_ticket", TICKET)], {"type": "function", "function": {"name": "file_ticket"}}
    whole = chat(client, tools=tools, tool_choice=named).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.content is None
    (call,) = whole.message.tool_calls
    assert call.function.name == "file_ticket" and call.id.startswith("call_")
    check(call.function.arguments)
    with client.chat.completions.stream(model="tiny", messages=HI, seed=1, temperature=1, max_tokens=1500, tools=tools,
                                        tool_choice=named) as stream:
        (again,) = stream.get_final_completion().choices[0].message.tool_calls
    assert again.function.arguments == call.function.arguments
    required = chat(client, n=2, tools=[function("ping")], tool_choice="required")
    assert [json.loads(choice.message.tool_calls[0].function.arguments) for choice in required.choices] == [{}, {}]
    for choice in ("auto", "required"):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, tools=tools, tool_choice=choice)
        assert caught.value.param == "tools"
    body = {"model": "tiny", "max_tokens": 1500, "messages": HI, "tools": [{"name": "file_ticket", "input_schema": TICKET}],
            "tool_choice": {"type": "tool", "name": "file_ticket"}}
    status, text = cluster.post("/v1/messages", body)
    assert status == 200, text
    answer = json.loads(text)
    assert answer["stop_reason"] == "tool_use" and answer["content"][0]["name"] == "file_ticket"
    jsonschema.validate(answer["content"][0]["input"], TICKET)


def test_by_grpc(cluster):
    with grpc.insecure_channel(cluster.grpc) as channel:
        octant = Inference(channel)

        def ask(**form):
            request = octant.ChatRequest(messages=[{"role": "user", "content": "hi"}], sampling={"max_tokens": 1500, "seed": 2, **form})
            return "".join(piece.text for piece in octant.Chat(request, timeout=60))
        check(ask(json_schema=json.dumps(TICKET)))
        assert ask(choice={"texts": ["a b", "c\"d"]}) in ("a b", "c\"d")
        assert re.fullmatch("x{3,5}", ask(regex="x{3,5}"))
        with pytest.raises(grpc.RpcError) as caught:
            ask(json_schema="{\"not\":{}}")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "'not'" in caught.value.details()


def test_anthropics_output_format(cluster):
    body = {"model": "tiny", "max_tokens": 1500, "messages": HI, "output_config": {"format": {"type": "json_schema", "schema": TICKET}}}
    status, text = cluster.post("/v1/messages", body)
    assert status == 200, text
    check(json.loads(text)["content"][0]["text"])


LONG = {"type": "array", "items": TICKET, "minItems": 6, "maxItems": 6, "$defs": TICKET["$defs"]}


def test_a_rank_dies_in_the_middle(tiny_model):
    """The next group goes on under the same grammar, with the same answer."""
    with Cluster(tiny_model, ranks=2, name="tiny", worker_args=["--stages", "2"]) as cluster:
        client = connect(cluster)
        calm = [chat(client, seed=seed, max_tokens=3500, response_format=schema_format(LONG)).choices[0].message.content for seed in range(2)]
        cluster.start_group()
        wait_for(lambda: sum(state == "READY" for state, _ in group_states(cluster)) == 2, 30)
        said = [[] for _ in calm]

        def ask(seed):
            with client.chat.completions.create(model="tiny", messages=HI, seed=seed, temperature=1, max_tokens=3500, stream=True,
                                                response_format=schema_format(LONG)) as stream:
                for chunk in stream:
                    said[seed].append(chunk.choices[0].delta.content or "")
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(len(calm))]
        with cluster.slowed():
            for thread in threads:
                thread.start()
            wait_for(lambda: all(len(pieces) > 20 for pieces in said), 30)
            os.kill(cluster.rank_pids(0)[1], signal.SIGKILL)
        for thread in threads:
            thread.join(240)
        assert any(state == "LOST" for state, _ in group_states(cluster))
        for pieces, text in zip(said, calm):
            check(text, LONG)
            assert "".join(pieces) == text
