"""The output file of a batch: what it remembers, how it survives what can happen to a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.batch.record import BatchRecord, Claim
from headrace.core.errors import ConfigError


def line(number: int, custom_id: str | None, error: object = None) -> bytes:
    return json.dumps({"id": f"batch_req_{number}", "custom_id": custom_id, "error": error}).encode() + b"\n"


FAILED = {"code": "http_500", "message": "Broken."}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_new_record_knows_nothing(path: Path) -> None:
    with BatchRecord.open(path) as record:
        assert record.claim("a", "batch_req_1") is Claim.NEW
        assert record.claim("a", "batch_req_2") is Claim.DUPLICATE
        assert record.claim(None, "batch_req_3") is Claim.NEW
        record.append(line(1, "a"))
    assert path.read_bytes() == line(1, "a")


def test_what_is_recorded_is_answered_once(path: Path) -> None:
    path.write_bytes(line(1, "a") + line(3, None, FAILED) + line(2, "b", FAILED))
    with BatchRecord.open(path) as record:
        assert record.failed_before == 2
        assert record.claim("b", "batch_req_9") is Claim.ANSWERED
        assert record.claim("a", "batch_req_1") is Claim.ANSWERED
        assert record.claim("a", "batch_req_3") is Claim.ANSWERED, "the duplicate was reported already"
        assert record.claim("a", "batch_req_4") is Claim.DUPLICATE
        assert record.claim("batch_req_3", "batch_req_5") is Claim.NEW, "a custom id is not a line's own"


@pytest.mark.parametrize("torn", [b"", b"{", line(2, "b")[:-2], b"\0" * 50])
def test_a_torn_line_is_cut_off(path: Path, torn: bytes) -> None:
    path.write_bytes(line(1, "a") + torn)
    with BatchRecord.open(path) as record:
        assert record.claim("a", "batch_req_1") is Claim.ANSWERED
        assert record.claim("b", "batch_req_2") is Claim.NEW
        record.append(line(2, "b"))
    assert path.read_bytes() == line(1, "a") + line(2, "b")


def test_a_line_that_lacks_its_end_gets_it(path: Path) -> None:
    path.write_bytes(line(1, "a").rstrip())
    with BatchRecord.open(path) as record:
        record.append(line(2, "b"))
    assert path.read_bytes() == line(1, "a") + line(2, "b")


@pytest.mark.parametrize("content", [b"notes\n", b'{"custom_id": "a"}\n', b"[]\n\n"])
def test_a_file_of_another_kind_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"line 1 of .* is not of a batch's output"), BatchRecord.open(path):
        pass
    assert path.read_bytes() == content


def test_two_do_not_write_to_one_file(path: Path) -> None:
    with (
        BatchRecord.open(path),
        pytest.raises(ConfigError, match="another process writes"),
        BatchRecord.open(path),
    ):
        pass
    with BatchRecord.open(path):
        pass


def test_failed_lines_are_forgotten_on_request(path: Path) -> None:
    kept = line(1, "a") + line(4, "d")
    path.write_bytes(line(2, "b", FAILED) + line(1, "a") + line(3, None, FAILED) + line(4, "d") + b"{torn")
    with BatchRecord.open(path, forget_failed=True) as record:
        assert path.read_bytes() == kept
        assert record.failed_before == 0
        assert record.claim("b", "batch_req_2") is Claim.NEW
        assert record.claim("d", "batch_req_4") is Claim.ANSWERED
        record.append(line(2, "b"))
        with pytest.raises(ConfigError, match="another process"), BatchRecord.open(path):
            pass
    assert path.read_bytes() == kept + line(2, "b")
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"--output-file: cannot open .*: No such file or directory"),
        BatchRecord.open(tmp_path / "no" / "out.jsonl"),
    ):
        pass


def test_a_device_is_no_record() -> None:
    with pytest.raises(ConfigError, match="/dev/null is not a file"), BatchRecord.open(Path("/dev/null")):
        pass


def test_any_name_can_be_claimed(path: Path) -> None:
    with BatchRecord.open(path) as record:
        for name in ("", "a" * 10_000, "\ud800", "\n"):
            assert record.claim(name, "batch_req_1") is Claim.NEW
