"""Where lists are made: what `auto` takes, and a device that is not there is told of before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from stream.errors import ConfigError
from stream.lists.serving import pick_device


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto") == device
        assert pick_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="use cpu or auto"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="no device is called 'tpu'"):
        pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("cuda:1") == "cuda:1"
