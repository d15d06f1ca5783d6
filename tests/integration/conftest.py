"""What the tests of the operator as a whole share."""

from typing import Any

import pytest


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas in one event loop: kopf, when it ends, ends every task that is younger than itself."""

    async def none(**_: Any) -> list[Any]:
        return []

    monkeypatch.setattr("kopf._cogs.aiokits.aiotasks.all_tasks", none)
