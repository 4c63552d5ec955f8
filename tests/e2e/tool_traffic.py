"""What the tests of several clients ask for. SmolLM2 is small: what it has to write is demanded of it, and short."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class GetWeather(BaseModel):
    """Weather of a city."""

    city: Literal["Bergen", "Oslo"]
    days: int = Field(ge=1, le=7)


class Stop(BaseModel):
    """End the conversation."""

    polite: bool


class Report(BaseModel):
    """A weather report."""

    city: Literal["Bergen", "Oslo"]
    degrees: int = Field(ge=-30, le=40)
    sky: Literal["clear", "cloudy", "rain"]


MESSAGES = [{"role": "user", "content": "How is the weather in Bergen for the next three days?"}]

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "GetWeather",
        "description": "Weather of a city",
        "parameters": GetWeather.model_json_schema(),
    },
}
STOP_TOOL = {
    "type": "function",
    "function": {
        "name": "Stop",
        "description": "End the conversation",
        "parameters": Stop.model_json_schema(),
    },
}

A_CALL = (
    "Let me see\\.\n<tool_call>\n"
    '\\{"name": "GetWeather", "arguments": \\{"city": "(Bergen|Oslo)", "days": [1-7]\\}\\}\n</tool_call>'
)
"""An answer with a call as the model would write it by itself: a regular expression to hold it to."""
