"""What the tests of model folders have in common."""

from pathlib import Path

import pytest

from slmkit.run import RunFailed
from slmkit.safety import check_model_folder
from slmops.contract import Reason


def refused(folder: Path, *words: str) -> Reason:
    """The reason why a folder is, in a message of these words: it is unsafe."""
    with pytest.raises(RunFailed) as failed:
        check_model_folder(folder)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    for word in words:
        assert word in failed.value.message
    return failed.value.reason
