"""octant.v1 by the official grpcio package, unmodified, against a real cluster. The stubs are made from the server's own reflection: what
is called is what a stranger's tool would call."""
import time

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from cluster import wait_for


class Inference:
    """The service as the server describes it: request types by name, methods as callables."""

    def __init__(self, channel):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName("octant.v1.Inference")
        for method in service.methods:
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            setattr(self, method.name, make(f"/{service.full_name}/{method.name}", request.SerializeToString, response.FromString))
            setattr(self, method.input_type.name, request)


@pytest.fixture(scope="module")
def channel(cluster):
    with grpc.insecure_channel(cluster.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def octant(channel):
    return Inference(channel)


def complete(octant, **sampling):
    more = {key: sampling.pop(key) for key in ("echo", "model", "prompt") if key in sampling}
    return octant.CompleteRequest(**{"prompt": "Once upon", **more}, sampling={"max_tokens": 16, "seed": 5, "ignore_eos": True, **sampling})


def texts(pieces):
    out = {}
    for piece in pieces:
        out[piece.index] = out.get(piece.index, "") + piece.text
    return out


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def running(octant):
    return octant.ServerInfo(octant.ServerInfoRequest(), timeout=10).running


def test_models_and_info(octant):
    model, = octant.ListModels(octant.ListModelsRequest(), timeout=10).models
    assert model.name == "tiny" and model.ready and model.context > 0 and model.parameters > 0
    info = octant.ServerInfo(octant.ServerInfoRequest(), timeout=10)
    group, = [g for g in info.groups if g.state == "READY"]
    assert [rank.rank for rank in group.ranks] == [0, 1] and group.kv_blocks_total > 0


def test_stream(octant):
    pieces = list(octant.Complete(complete(octant), timeout=60))
    assert pieces[-1].usage.completion_tokens == 16 and pieces[-1].usage.seed == 5
    assert [p.finish_reason for p in pieces if p.finish_reason] == ["length"]
    assert sum(len(p.token_ids) for p in pieces) == 16
    again = list(octant.Complete(complete(octant), timeout=60))
    assert texts(again) == texts(pieces)


def test_chat(octant):
    request = octant.ChatRequest(model="tiny", messages=[{"role": "user", "content": "Hi"}], sampling={"max_tokens": 8, "temperature": 0})
    pieces = list(octant.Chat(request, timeout=60))
    assert pieces[-1].usage.completion_tokens >= 1 and pieces[0].id.startswith("chatcmpl-")


def test_options(octant):
    pieces = list(octant.Complete(complete(octant, n=2, logprobs=3, echo=True), timeout=60))
    answers = texts(pieces)
    assert sorted(answers) == [0, 1] and all(text.startswith("Once upon") for text in answers.values())
    chosen = [p for piece in pieces for p in piece.logprobs]
    assert chosen and all(len(p.top) <= 3 for p in chosen)
    ids = octant.Tokenize(octant.TokenizeRequest(text="Once upon"), timeout=10).ids
    request = octant.CompleteRequest(prompt_tokens={"ids": ids}, sampling={"max_tokens": 16, "seed": 5, "ignore_eos": True})
    assert texts(octant.Complete(request, timeout=60)) == texts(octant.Complete(complete(octant), timeout=60))


def test_cancel(octant):
    call = octant.Complete(complete(octant, max_tokens=4000))
    next(call)
    assert running(octant) == 1
    call.cancel()
    wait_for(lambda: running(octant) == 0, 2)  # a step, and the status is 100 ms old


def test_deadline(octant):
    begin = time.monotonic()
    error = refused(octant.Complete(complete(octant, max_tokens=4000), timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - begin < 10
    wait_for(lambda: running(octant) == 0, 5)


def test_refusals(octant, channel):
    I, N, R = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED
    for sampling, code, word in [
        ({"temperature": -1}, I, "temperature"), ({"temperature": float("nan")}, I, "temperature"), ({"max_tokens": -5}, I, "max_tokens"),
        ({"n": 100}, I, "n is 100"), ({"stop": [""]}, I, "stop"), ({"max_tokens": 1 << 30}, I, "context"), ({"model": "other"}, N, "other"),
        ({"logit_bias": {1 << 30: 1.0}}, I, "logit_bias"), ({"prompt": "a " * 50000}, I, "context"), ({"prompt": "x" * (17 << 20)}, R, "bytes")]:
        error = refused(octant.Complete(complete(octant, **sampling), timeout=30))
        assert error.code() == code and word in error.details(), (sampling.keys(), error)
    raw = channel.unary_stream("/octant.v1.Inference/Complete")
    assert refused(raw(b"\xff\xff\xff", timeout=10)).code() == I
    assert refused(raw(b"\x12\x02\xff\xfe", timeout=10)).code() == I  # a prompt that is not UTF-8
    assert refused(raw(b"", timeout=10)).code() == I
    assert refused(channel.unary_stream("/octant.v1.Inference/Nothing")(b"", timeout=10)).code() == grpc.StatusCode.UNIMPLEMENTED
    assert list(octant.Complete(complete(octant), timeout=60))  # unharmed


def test_watch(octant):
    call = octant.Watch(octant.WatchRequest(), timeout=60)
    first, second = next(call), next(call)
    assert (first.kind, second.kind) == ("group-registered", "group-ready")
    assert (first.sequence, second.sequence) == (1, 2) and second.group and second.model == "tiny" and second.rank == -1
    call.cancel()
    again = octant.Watch(octant.WatchRequest(after=1), timeout=60)
    assert next(again) == second
    again.cancel()


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in "", "octant.v1.Inference":
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == health_pb2.HealthCheckResponse.SERVING


def test_many_streams(octant):
    alone = texts(octant.Complete(complete(octant), timeout=60))
    calls = [octant.Complete(complete(octant), timeout=120) for _ in range(64)]
    assert all(texts(call) == alone for call in calls)
