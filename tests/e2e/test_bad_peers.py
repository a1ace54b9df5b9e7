"""gRPC peers that are wrong: clients with broken calls, and workers of another version, of another model, or that send what no worker
sends. Each hears the right code; the coordinator says one line and goes on."""
import json
import pathlib
import random
import sys
import threading

import grpc
import pytest
from grpc_tools import protoc

from cluster import ROOT, Cluster, wait_for
from test_bad_models import make

INFERENCE, CLUSTER = "/octant.v1.Inference/", "/octant.cluster.v1.Cluster/"
GROWTH = 64 << 20


@pytest.fixture(scope="module")
def pb(tmp_path_factory):
    """The messages of both protocols, made from the .proto files."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("inference", "cluster"):
        assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}", f"{name}.proto"]) == 0
    sys.path.insert(0, str(folder))
    import cluster_pb2
    import inference_pb2
    cluster_pb2.inference = inference_pb2
    yield cluster_pb2
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def standing(tiny_model):
    with Cluster(tiny_model, name="tiny", worker_args=["--kv-memory", "64MiB"]) as running:
        ask(running)
        yield running


def ask(cluster):
    status, body = cluster.post("/v1/completions", {"model": "tiny", "prompt": "still there", "max_tokens": 4, "ignore_eos": True}, timeout=20)
    assert status == 200, body


def resident(cluster):
    text = pathlib.Path(f"/proc/{cluster.coordinator.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) << 10


@pytest.fixture(autouse=True)
def unharmed(standing):
    before = resident(standing)
    yield
    assert standing.coordinator.poll() is None, standing.log()
    ask(standing)
    assert resident(standing) - before < GROWTH, f"{before} bytes before, {resident(standing)} after"


@pytest.fixture
def channel(standing):
    with grpc.insecure_channel(standing.grpc, options=[("grpc.max_send_message_length", -1)]) as opened:
        yield opened


def code_of(call):
    """(code, details) of a call or stream that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call())
    assert "\n" not in caught.value.details() and len(caught.value.details()) < 1000, caught.value.details()
    return caught.value.code(), caught.value.details()


def test_broken_calls(channel, pb):
    inference, C = pb.inference, grpc.StatusCode
    chat, complete = channel.unary_stream(INFERENCE + "Chat"), channel.unary_stream(INFERENCE + "Complete")
    tokenize = channel.unary_unary(INFERENCE + "Tokenize")
    noise = random.Random(1).randbytes
    for bad in (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f", b"\x08", noise(100), noise(100000), b"\x0a\x05ab"):
        assert code_of(lambda: chat(bad, timeout=10))[0] in (C.INVALID_ARGUMENT, C.NOT_FOUND), bad[:20]
        assert code_of(lambda: complete(bad, timeout=10))[0] in (C.INVALID_ARGUMENT, C.NOT_FOUND), bad[:20]
        assert code_of(lambda: tokenize(bad, timeout=10))[0] in (C.INVALID_ARGUMENT, C.NOT_FOUND), bad[:20]
    for path in (INFERENCE + "Nothing", "/octant.v1.Nobody/Chat", "/", "nonsense", CLUSTER + "Steps/x"):
        assert code_of(lambda: channel.unary_stream(path)(b"", timeout=10))[0] == C.UNIMPLEMENTED, path
    bad_text = b"\x0a\x04tiny\x12\x02\xff\xfe"  # model: tiny, prompt: no UTF-8
    assert code_of(lambda: complete(bad_text, timeout=10))[0] == C.INVALID_ARGUMENT

    def asked(**more):
        return inference.CompleteRequest(model="tiny", prompt="a", sampling=inference.Sampling(**more)).SerializeToString()

    for more in (dict(temperature=float("nan")), dict(temperature=float("inf")), dict(temperature=-1), dict(top_p=float("nan")), dict(top_p=0), dict(min_p=2),
                 dict(max_tokens=0), dict(max_tokens=-5), dict(n=0), dict(n=17), dict(n=-(1 << 31)), dict(top_k=-1), dict(logprobs=21), dict(logprobs=-2),
                 dict(repetition_penalty=0), dict(repetition_penalty=float("inf")), dict(presence_penalty=float("nan")), dict(frequency_penalty=3),
                 dict(stop=["x"] * 17), dict(stop=["x" * (1 << 20)]), dict(logit_bias={1: float("nan")}), dict(logit_bias={-1: 1}), dict(logit_bias={1 << 30: 1}),
                 dict(logit_bias={1: 101}), dict(max_tokens=1 << 30)):
        assert code_of(lambda: complete(asked(**more), timeout=10))[0] == C.INVALID_ARGUMENT, more
    ids = inference.CompleteRequest(model="tiny", prompt_tokens=inference.TokenIds(ids=[1, 1 << 30])).SerializeToString()
    assert code_of(lambda: complete(ids, timeout=10))[0] == C.INVALID_ARGUMENT
    long = inference.CompleteRequest(model="tiny", prompt="z " * 100000).SerializeToString()
    code, why = code_of(lambda: complete(long, timeout=10))
    assert code == C.INVALID_ARGUMENT and "4096" in why
    assert code_of(lambda: complete(inference.CompleteRequest(model="gpt-9", prompt="a").SerializeToString(), timeout=10))[0] == C.NOT_FOUND
    assert code_of(lambda: chat(inference.ChatRequest(model="tiny").SerializeToString(), timeout=10))[0] == C.INVALID_ARGUMENT
    for role in ("", "emperor", "user\0"):
        message = inference.ChatRequest(model="tiny", messages=[inference.Message(role=role, content="a")])
        assert code_of(lambda: chat(message.SerializeToString(), timeout=10))[0] == C.INVALID_ARGUMENT, role


def test_too_large_messages(tiny_model):
    """Refused. What gRPC keeps of one (it allocates up to the largest message that a worker may send) it does not keep of each."""
    def send(cluster, size):
        with grpc.insecure_channel(cluster.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
            code, why = code_of(lambda: channel.unary_stream(INFERENCE + "Chat")(bytes(size), timeout=30))
        print(f"{size >> 20} MiB: {code} {why}; resident {resident(cluster) >> 20} MiB")
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED or size == 8 << 20 and code == grpc.StatusCode.INVALID_ARGUMENT

    with Cluster(tiny_model, name="tiny", worker_args=["--kv-memory", "64MiB"]) as cluster:  # its own: the others watch their memory
        for _ in range(6):
            for size in (8 << 20, 100 << 20, 200 << 20):
                send(cluster, size)
        ask(cluster)
        wait_for(lambda: resident(cluster) < (256 << 20) + GROWTH, 10)


def test_deadlines_and_cancels(channel, pb, standing):
    long = pb.inference.CompleteRequest(model="tiny", prompt="a", sampling=pb.inference.Sampling(max_tokens=4000, ignore_eos=True)).SerializeToString()
    complete = channel.unary_stream(INFERENCE + "Complete")
    for timeout in (-1, 0, 0.000001, 0.01, 0.1):
        assert code_of(lambda: complete(long, timeout=timeout))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    for _ in range(200):
        complete(long, timeout=10).cancel()
    for _ in range(20):
        call = complete(long, timeout=10)
        next(call)
        call.cancel()
    wait_for(lambda: "octant_sequences_running 0" in standing.get("/metrics")[1], 5)


# ---- workers

class Leader:
    """Rank 0 of a group that does not exist."""

    def __init__(self, standing, pb, folder, name="fake", **change):
        self.pb, self.standing = pb, standing
        self.channel = grpc.insecure_channel(standing.grpc, options=[("grpc.max_send_message_length", -1)])
        card = [pb.CardPart(name=file, content=(folder / file).read_bytes()) for file in ("config.json", "tokenizer.json", "tokenizer_config.json")]
        fields = dict(protocol=3, stages=1, version=version(standing), model=name, fingerprint="0" * 32, card=card, hosts=["nowhere"], pids=[1], backend="none")
        self.request = pb.RegisterRequest(**{**fields, **change})
        self.sent, self.outbox, self.more = [], [], threading.Condition()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.say(None)
        self.channel.close()

    def register(self):
        reply = self.channel.unary_unary(CLUSTER + "Register")(self.request.SerializeToString(), timeout=20)
        self.group = self.pb.RegisterResponse.FromString(reply)
        return self.group

    def say(self, message):
        with self.more:
            self.outbox.append(message)
            self.more.notify()

    def _messages(self):
        while True:
            with self.more:
                while not self.outbox:
                    self.more.wait(30)
                message = self.outbox.pop(0)
            if message is None:
                return
            yield message

    def steps(self, *messages):
        """Opens the step stream and says the messages, bytes or LeaderMessages; the call."""
        for message in messages:
            self.say(message if isinstance(message, bytes) else message.SerializeToString())
        return self.channel.stream_stream(CLUSTER + "Steps")(self._messages(), timeout=20)

    def ready(self, **change):
        fields = dict(group_id=self.group.group_id, epoch=self.group.epoch, kv_blocks=64)
        return self.pb.LeaderMessage(ready=self.pb.GroupReady(**{**fields, **change}))

    def beat(self, **change):
        fields = dict(group_id=self.group.group_id, epoch=self.group.epoch, pid=1, host="nowhere", phase=2)
        return self.channel.unary_unary(CLUSTER + "Heartbeat")(self.pb.HeartbeatRequest(**{**fields, **change}).SerializeToString(), timeout=10)


def version(cluster):
    return next(line for line in cluster.get("/metrics")[1].splitlines() if line.startswith("octant_build_info")).split('version="')[1].split('"')[0]


@pytest.fixture(scope="module")
def card_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    make("--preset", "tiny", "--folder", path)
    return path


def test_registrations_that_are_refused(standing, pb, card_folder):
    C = grpc.StatusCode
    card = [pb.CardPart(name=f, content=(card_folder / f).read_bytes()) for f in ("config.json", "tokenizer.json")]
    for change, code, words in (
            (dict(protocol=99), C.FAILED_PRECONDITION, "protocol 99"), (dict(version="0.0.0"), C.FAILED_PRECONDITION, "0.0.0"),
            (dict(version=""), C.FAILED_PRECONDITION, ""), (dict(name="tiny"), C.FAILED_PRECONDITION, "another group serves 'tiny'"),
            (dict(name=""), C.INVALID_ARGUMENT, "name"), (dict(name="x" * 5000), C.INVALID_ARGUMENT, ""), (dict(name="a\nb"), C.INVALID_ARGUMENT, ""),
            (dict(fingerprint=""), C.INVALID_ARGUMENT, "fingerprint"), (dict(fingerprint="0" * 65), C.INVALID_ARGUMENT, "fingerprint"),
            (dict(hosts=[], pids=[]), C.INVALID_ARGUMENT, ""), (dict(hosts=["a"] * 5, pids=[1] * 5), C.INVALID_ARGUMENT, "1 to 4 ranks"),
            (dict(stages=0), C.INVALID_ARGUMENT, "stages"), (dict(stages=2), C.INVALID_ARGUMENT, "1 to 1 stages"),
            (dict(stages=1000), C.INVALID_ARGUMENT, "stages"), (dict(stages=-1), C.INVALID_ARGUMENT, "stages"),
            (dict(hosts=["a"] * 2), C.INVALID_ARGUMENT, ""), (dict(hosts=["a"] * 100000, pids=[1] * 100000), C.INVALID_ARGUMENT, ""),
            (dict(card=[]), C.INVALID_ARGUMENT, ""), (dict(card=card[:1]), C.NOT_FOUND, "tokenizer.json"),
            (dict(card=[pb.CardPart(name="gguf", content=bytes(1000))]), C.INVALID_ARGUMENT, "GGUF"),
            (dict(card=[pb.CardPart(name="config.json", content=b"[" * 100000), card[1]]), C.INVALID_ARGUMENT, "config.json"),
            (dict(card=card * 100), C.INVALID_ARGUMENT, "")):
        with Leader(standing, pb, card_folder, **change) as leader:
            got, why = code_of(lambda: leader.register())
            assert got == code and words in why, (change if "card" not in change else "card", got, why)
    with grpc.insecure_channel(standing.grpc) as channel:
        for bad in (b"\xff" * 100, random.Random(2).randbytes(1000)):
            for method in ("Register", "Heartbeat", "Drain"):
                assert code_of(lambda: channel.unary_unary(CLUSTER + method)(bad, timeout=10))[0] == C.INVALID_ARGUMENT


def test_first_messages_that_are_refused(standing, pb, card_folder):
    L, R = pb.LeaderMessage, pb.StepResult
    with Leader(standing, pb, card_folder) as leader:
        leader.register()
        firsts = [leader.ready(epoch=leader.group.epoch + 1000), leader.ready(epoch=0), leader.ready(group_id="g999"), leader.ready(group_id=""),
                  leader.ready(kv_blocks=0), leader.ready(kv_blocks=-1), L(), L(result=R(step=1)), L(failed=pb.GroupFailed(reason="x")), b"\xff\xff", b"",
                  leader.ready(group_id="g" * 100000)]
    for first in firsts:
        with Leader(standing, pb, card_folder) as leader:
            code, why = code_of(lambda: leader.steps(first))
            assert code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT), (first, code, why)


def group_state(standing, group_id):
    return next((g["state"] for g in json.loads(standing.get("/status")[1])["groups"] if g["id"] == group_id), "gone")


def test_results_that_no_worker_sends(standing, pb, card_folder):
    """Each ends its group, which is said, and nothing else."""
    L, R, S = pb.LeaderMessage, pb.StepResult, pb.SeqResult
    choice = pb.TokenChoice(id=1, logprob=-1)
    for case, message in {
            "never sent": L(result=R(step=1)), "step 0": L(result=R(step=0)), "last step": L(result=R(step=(1 << 64) - 1)),
            "slot out of range": L(result=R(step=1, seqs=[S(slot=1 << 30, token=1)])), "slot below none": L(result=R(step=1, seqs=[S(slot=-1, token=1)])),
            "token out of range": L(result=R(step=1, seqs=[S(slot=0, token=1 << 30)])), "no number": L(result=R(step=1, seqs=[S(slot=0, token=1, logprob=float("nan"))])),
            "many": L(result=R(step=1, seqs=[S(slot=i % 100, token=1) for i in range(100000)])),
            "wide": L(result=R(step=1, seqs=[S(slot=0, token=1, top=[choice] * 100000)])), "empty": L(), "noise": b"\xff" * 1000,
            "huge": bytes(60 << 20), "ready twice": None}.items():
        with Leader(standing, pb, card_folder) as leader:
            leader.register()
            leader.beat()
            call = leader.steps(leader.ready(), leader.ready() if message is None else message)
            with pytest.raises(grpc.RpcError):
                for answer in call:  # Bye may come first
                    print(f"{case}: {answer[:200]}")
                raise grpc.RpcError("ended")
            wait_for(lambda: group_state(standing, leader.group.group_id) in ("LOST", "gone"), 5)
        ask(standing)


def test_a_silent_group_is_lost(standing, pb, card_folder):
    with Leader(standing, pb, card_folder) as leader:
        leader.register()
        leader.beat()
        stream = leader.steps(leader.ready())
        wait_for(lambda: group_state(standing, leader.group.group_id) in ("READY", "LOST", "gone"), 5)
        wait_for(lambda: group_state(standing, leader.group.group_id) in ("LOST", "gone"), 3)
        stream.cancel()


def test_heartbeats_of_strangers(standing, pb, card_folder):
    with Leader(standing, pb, card_folder) as leader:
        leader.register()
        for change in (dict(epoch=1 << 60), dict(group_id="g999"), dict(group_id="x" * 1000), dict(rank=99), dict(rank=-1), dict(phase=99),
                       dict(load_fraction=float("nan")), dict(host="h" * 10000), dict(error="e" * 100000), dict(memory_bytes=-1)):
            try:
                assert pb.HeartbeatResponse.FromString(leader.beat(**change)).stop in (True, False)
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND,
                                        grpc.StatusCode.RESOURCE_EXHAUSTED), error
