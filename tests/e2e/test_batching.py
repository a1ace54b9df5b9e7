"""A crowd changes nothing: what 64 streams answer at once is what each answers alone, sampled or greedy."""
import concurrent.futures
import json


def ask(cluster, i):
    body = {"model": "tiny", "prompt": f"ticket number {i}: " + "word " * (i * 7 % 90), "max_tokens": 40 + i % 50, "seed": i,
            "temperature": 0 if i % 2 else 0.9, "top_p": 0.95, "frequency_penalty": 0.3 if i % 5 == 0 else 0}
    status, text = cluster.post("/v1/completions", body, timeout=120)
    assert status == 200, text
    choice = json.loads(text)["choices"][0]
    return choice["text"], choice["finish_reason"]


def test_64_streams_at_once_answer_as_alone(cluster):
    alone = [ask(cluster, i) for i in range(64)]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda i: ask(cluster, i), range(64)))
    assert together == alone
    assert len({text for text, _ in alone}) > 32  # the answers do differ
