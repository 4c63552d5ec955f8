"""The lines of a batch: which can be sent, and what is said of those that cannot."""

from __future__ import annotations

import io
import json

import pytest

from headrace.batch.lines import InputLine, LineRefused, answered, read_lines, read_request, refused, unanswered

GOOD = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Hi", "n": 1}}


def line_of(value: object) -> InputLine:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return InputLine(7, text, len(text))


def test_a_request_is_sent_as_it_stands() -> None:
    request = read_request(line_of(b'{"body": {"prompt":  "\\u00e9"}, "url": "/score", "custom_id": "x", "more": 1}'))
    assert (request.custom_id, request.path, request.body) == ("x", "/score", b'{"prompt":  "\\u00e9"}')


@pytest.mark.parametrize(
    ("line", "code", "custom_id", "message"),
    [
        (b"not json", "invalid_line", None, "Line 7 is not a request of a batch"),
        (b"[]", "invalid_line", None, "Line 7"),
        (b'"\xff"', "invalid_line", None, "Line 7"),
        ({**GOOD, "custom_id": 5}, "invalid_line", None, "custom_id"),
        ({"custom_id": "a", "url": "/score"}, "invalid_line", "a", "body"),
        ({"custom_id": "a", "body": {}}, "invalid_line", "a", "url"),
        ({**GOOD, "url": "/v1/models"}, "invalid_url", "a", "must be one of /v1/chat/completions"),
        ({**GOOD, "method": "GET"}, "invalid_method", "a", "must be POST, got 'GET'"),
        ({**GOOD, "body": [1]}, "invalid_body", "a", "body must be a JSON object"),
        ({**GOOD, "body": {"stream": True}}, "invalid_body", "a", "stream"),
    ],
)
def test_what_cannot_be_sent_is_refused(line: object, code: str, custom_id: str | None, message: str) -> None:
    with pytest.raises(LineRefused, match=message) as caught:
        read_request(line_of(line))
    assert (caught.value.code, caught.value.custom_id) == (code, custom_id)


def test_lines_are_numbered_as_in_the_file() -> None:
    lines = list(read_lines(io.BytesIO(b"\xef\xbb\xbf{1}\r\n\n  \n{4}")))
    assert [(line.number, line.text, line.id) for line in lines] == [
        (1, b"{1}\r\n", "batch_req_1"),
        (4, b"{4}", "batch_req_4"),
    ]


def test_a_line_without_end_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.batch.lines.LONGEST_LINE", 10)
    source = io.BytesIO(b"x" * 10 + b"\n" + b"y" * 35 + b"\nz\n" + b"w" * 11)
    lines = list(read_lines(source))
    assert [(line.number, line.text, line.size) for line in lines] == [
        (1, b"x" * 10 + b"\n", 11),
        (2, None, 36),
        (3, b"z\n", 2),
        (4, None, 11),
    ]
    with pytest.raises(LineRefused, match="Line 2 has more than 10 bytes"):
        read_request(lines[1])


def test_outcomes_are_one_line_each() -> None:
    request = read_request(line_of(GOOD))
    good = answered(request, {"id": "cmpl-1", "text": "a\nb"}, None)
    assert good.count(b"\n") == 1
    assert json.loads(good) == {
        "id": "batch_req_7",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "cmpl-1", "body": {"id": "cmpl-1", "text": "a\nb"}},
        "error": None,
    }
    bad = json.loads(refused(request, 404, {"error": {"message": "No."}}, "r-1", "No."))
    assert bad["response"] == {"status_code": 404, "request_id": "r-1", "body": {"error": {"message": "No."}}}
    assert bad["error"] == {"code": "http_404", "message": "No."}
    lost = json.loads(unanswered(line_of(GOOD), None, "no_answer", "It broke."))
    assert lost == {
        "id": "batch_req_7",
        "custom_id": None,
        "response": None,
        "error": {"code": "no_answer", "message": "It broke."},
    }
