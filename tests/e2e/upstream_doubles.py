"""What the tests of upstreams share: the doubles' words, and their server for a module."""
import sys

from cluster import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from doubles.answers import WORDS, canonical  # noqa: E402
from doubles.running import BASES, KEY, Doubles  # noqa: E402, F401

TEXT = canonical(WORDS)
APIS = list(BASES)
