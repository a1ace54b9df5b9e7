"""Fixtures of the end-to-end tests: models to serve, and a cluster that the tests of a module share."""
import os
import pathlib
import subprocess
import sys

import pytest

from cluster import BIN, ROOT, Cluster
from upstream_doubles import Doubles


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A GGUF file of a random Llama: 2 layers, context 4096. What it says makes no sense; that it says it, does."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", "--preset", "tiny", "--gguf", path, "--dtype", "f32"],
                   check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct, where it was fetched (deploy/get-model.sh) or OCTANT_TEST_MODEL names a file."""
    named = os.environ.get("OCTANT_TEST_MODEL")
    if not named:
        found = subprocess.run([ROOT / "deploy/get-model.sh", "smollm2-135m"], capture_output=True, text=True)
        named = found.stdout.strip().splitlines()[-1] if found.returncode == 0 and found.stdout.strip() else ""
    if not named or not pathlib.Path(named).exists():
        pytest.skip("SmolLM2 is not here: deploy/get-model.sh smollm2-135m")
    return named


@pytest.fixture(scope="session", autouse=True)
def programs():
    missing = [name for name in ("octant-coordinator", "octant-worker") if not (BIN / name).exists()]
    assert not missing, f"{', '.join(missing)} not in {BIN}: build first, or set OCTANT_BUILD"


@pytest.fixture(scope="module")
def cluster(tiny_model):
    """One coordinator and one group of two ranks of the tiny model, named "tiny"."""
    with Cluster(tiny_model, ranks=2, name="tiny") as running:
        yield running


@pytest.fixture(scope="module")
def doubles(tmp_path_factory):
    """The closed APIs' doubles (tests/doubles), fresh for each module."""
    with Doubles(tmp_path_factory.mktemp("doubles"), tls=True) as running:
        yield running
