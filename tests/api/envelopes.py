"""What every refusal must look like."""

from __future__ import annotations

from typing import Any

import httpx


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of a refusal, whose envelope must be whole."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == status
    return error
