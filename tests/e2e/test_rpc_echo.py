"""Octant's RPC server (proto/rpc_*) against the official gRPC packages, unmodified, with tests/tools/rpc_echo.c behind it."""
import os
import pathlib
import subprocess
import threading
import time

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = pathlib.Path(__file__).resolve().parents[2]
ECHO = pathlib.Path(os.environ.get("OCTANT_BUILD", ROOT / "build")) / "tests/rpc_echo"
SERVICES = ["test.Echo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.fixture
def echo():
    with subprocess.Popen([ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        process.port = int(process.stdout.readline())
        yield process
        process.stdin.close()
        assert process.wait(20) == 0  # stops in order, with whatever was open


@pytest.fixture
def channel(echo):
    with grpc.insecure_channel(f"127.0.0.1:{echo.port}") as channel:
        yield channel


def code(call, *args, **more):
    with pytest.raises(grpc.RpcError) as caught:
        result = call(*args, **more)
        list(result)
    return caught.value


def test_unary(channel):
    say = channel.unary_unary("/test.Echo/Say")
    assert say(b"hello", timeout=10) == b"hello"
    assert say(b"", timeout=10) == b""
    assert [future.result() for future in [say.future(b"%d" % i, timeout=20) for i in range(300)]] == [b"%d" % i for i in range(300)]


def test_stream(channel):
    assert list(channel.unary_stream("/test.Echo/Repeat")(b"abc", timeout=10)) == [b"abc"] * 100


def test_errors(channel):
    error = code(channel.unary_unary("/test.Echo/Refuse"), "not now: ä".encode(), timeout=10)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "not now: ä")
    assert dict(error.trailing_metadata())["retry-after-ms"] == "1500"
    assert code(channel.unary_unary("/test.Echo/Nothing"), b"", timeout=10).code() == grpc.StatusCode.UNIMPLEMENTED
    say = channel.unary_unary("/test.Echo/Say")
    for size in 1001, 2 << 20:
        assert code(say, b"x" * size, timeout=10).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert say(b"still here", timeout=10) == b"still here"
    gzip = channel.unary_unary("/test.Echo/Say")
    assert code(gzip, b"x" * 900, timeout=10, compression=grpc.Compression.Gzip).code() == grpc.StatusCode.UNIMPLEMENTED


def test_deadline_and_cancel(echo, channel):
    hold = channel.unary_stream("/test.Echo/Hold")
    begin = time.monotonic()
    assert code(hold, b"", timeout=2).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert echo.stdout.readline() == "closed 0\n"
    assert time.monotonic() - begin < 10
    call = hold(b"")
    time.sleep(1)  # it has arrived: a call that never did is never closed either
    call.cancel()
    assert echo.stdout.readline() == "closed 0\n"
    hold(b"")  # left open: stopping must end it
    time.sleep(0.1)


def test_health(echo, channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in "", "octant.v1.Inference":
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == serving
    assert code(health.Check, health_pb2.HealthCheckRequest(service="other"), timeout=10).code() == grpc.StatusCode.NOT_FOUND
    if hasattr(health, "List"):
        statuses = health.List(health_pb2.HealthListRequest(), timeout=10).statuses
        assert {name: s.status for name, s in statuses.items()} == {"": serving, "octant.v1.Inference": serving}
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == serving
    echo.stdin.write("off\n")
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    echo.stdin.write("on\n")
    assert next(watch).status == serving
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=20)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
    unknown.cancel()


def test_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert list(database.get_services()) == SERVICES
    pool = descriptor_pool.DescriptorPool(database)
    chat = pool.FindMethodByName("octant.v1.Inference.Chat")
    assert chat.input_type.full_name == "octant.v1.ChatRequest" and chat.server_streaming
    assert pool.FindMessageTypeByName("octant.v1.Sampling").fields_by_name["temperature"].number == 2
    assert pool.FindFileByName("cluster.proto").package == "octant.cluster.v1"
    assert pool.FindMessageTypeByName("octant.v1.Sampling.LogitBiasEntry")
    for name in "octant.v1.Nothing", "octant.v1", "nothing", "octant.v1.Inference.Chat.More":
        with pytest.raises(KeyError):
            pool.FindMessageTypeByName(name)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_versions(channel, version):
    ask = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                reflection_pb2.ServerReflectionRequest.SerializeToString,
                                reflection_pb2.ServerReflectionResponse.FromString)
    R = reflection_pb2.ServerReflectionRequest
    questions = [R(list_services=""), R(file_by_filename="health.proto"), R(file_containing_symbol="octant.v1.Usage.seed"),
                 R(file_containing_symbol="grpc.health.v1.HealthCheckResponse.SERVING.x"), R(all_extension_numbers_of_type="octant.v1.Usage"), R()]
    answers = list(ask(iter(questions), timeout=10))
    assert [a.WhichOneof("message_response") for a in answers] == [
        "list_services_response", "file_descriptor_response", "file_descriptor_response"] + ["error_response"] * 3
    assert [s.name for s in answers[0].list_services_response.service] == SERVICES
    assert answers[1].original_request == questions[1]
    assert answers[3].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_many_channels(echo):
    def run(failures):
        try:
            with grpc.insecure_channel(f"127.0.0.1:{echo.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                for _ in range(20):
                    assert len(list(channel.unary_stream("/test.Echo/Repeat")(b"x" * 900, timeout=30))) == 100
        except Exception as error:  # reported by the test's own thread
            failures.append(error)
    failures = []
    threads = [threading.Thread(target=run, args=(failures,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
