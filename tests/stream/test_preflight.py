"""What is refused before a worker starts, without asking a broker."""

from __future__ import annotations

import pytest

from index import gpu
from stream.errors import ConfigError
from stream.process import preflight
from stream.process.preflight import check_index
from stream.settings import load


def test_without_faiss_a_worker_that_makes_lists_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"(?s)FAISS is not installed.*eddyline\[cpu\]"):
        check_index(settings("auto"))
    check_index(settings("auto", "ingest"))


def settings(kind: str, role: str = "all"):
    return load({"index.kind": kind, "role": role}, {})


@pytest.mark.parametrize("kind", ["auto", "exact", "flat", "hnsw", "ivf-pq"])
def test_an_index_that_needs_no_gpu_is_taken(kind: str) -> None:
    check_index(settings(kind))


@pytest.mark.skipif(gpu.available(), reason="FAISS has a GPU here")
@pytest.mark.parametrize(("kind", "package"), [("gpu-flat", "faiss-gpu"), ("cagra", "faiss-gpu-cuvs")])
def test_an_index_that_cannot_be_had_is_refused_with_what_to_install(kind: str, package: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"(?s)index.kind is '{kind}'.*install {package}.*set index.kind to 'auto'"
    ) as e:
        check_index(settings(kind))
    assert e.value.exit_code == 3
    check_index(settings(kind, "ingest"))  # it makes no lists
