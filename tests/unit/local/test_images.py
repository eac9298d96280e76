"""Images without a registry: archives that a container runtime can import, with nothing of the host inside."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rft_local import images
from rft_local.errors import ToolMissing
from rft_local.images import host_folders, write_images


class Archive:
    """A docker archive, read."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as archive:
            files = {member.name: archive.extractfile(member) for member in archive}
            content = {name: file.read() for name, file in files.items() if file is not None}
        (self.manifest,) = json.loads(content["manifest.json"])
        self.config: dict[str, Any] = json.loads(content[self.manifest["Config"]])
        (name,) = self.manifest["Layers"]
        self.layer = content[name]
        self.digest = hashlib.sha256(self.layer).hexdigest()

    def members(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(self.layer)) as layer:
            return {member.name: member for member in layer}


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "busybox"
    program.write_bytes(b"program")
    program.chmod(0o755)
    which = images.shutil.which  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "shutil.which", lambda name, path=None: str(program) if name == "busybox" else which(name, path=path)
    )
    return program


@pytest.mark.usefixtures("busybox")
def test_each_image_is_an_archive_with_its_name_and_one_layer_of_the_right_digest(tmp_path: Path) -> None:
    archives = [Archive(path) for path in write_images(tmp_path / "images")]
    names = [name for archive in archives for name in archive.manifest["RepoTags"]]
    assert names == ["rft.local/pause:1", "rft.local/trainer:dev", "rft.local/operator:dev"]
    for archive in archives:
        assert archive.config["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{archive.digest}"]}
        assert archive.config["os"] == "linux"
        assert archive.config["architecture"] in ("amd64", "arm64")


@pytest.mark.usefixtures("busybox")
def test_skeleton_runs_the_projects_python_as_nobody_in_particular(tmp_path: Path) -> None:
    trainer = Archive(write_images(tmp_path)[1])
    config = trainer.config["config"]
    assert config["User"] == "65532:65532"
    environment = dict(each.split("=", 1) for each in config["Env"])
    assert environment["PATH"].split(":")[0] == f"{Path(sys.prefix).absolute()}/bin"
    members = trainer.members()
    assert members["tmp"].mode == 0o1777
    assert members["lib64"].linkname == "usr/lib64"
    for name in ("rft/config", "rft/data", "rft/run", "rft/claims", "rft/token", "etc/ssl", "usr"):
        assert members[name].isdir(), name
    assert all(member.size < 1_000 for member in members.values())


@pytest.mark.usefixtures("busybox")
def test_every_folder_comes_before_what_lies_in_it(tmp_path: Path) -> None:
    for path in write_images(tmp_path):
        seen = {"."}
        for name in Archive(path).members():
            assert str(Path(name).parent) in seen, name
            seen.add(name)


@pytest.mark.usefixtures("busybox")
def test_pause_image_holds_the_program_it_runs(tmp_path: Path) -> None:
    pause = Archive(write_images(tmp_path)[0])
    assert pause.config["config"]["Cmd"][0] == "/bin/busybox"
    assert pause.members()["bin/busybox"].mode == 0o755


@pytest.mark.usefixtures("busybox")
def test_image_is_the_same_when_it_is_written_again(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_images(tmp_path / "a")]
    assert [path.read_bytes() for path in write_images(tmp_path / "b")] == first


def test_missing_busybox_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ToolMissing, match="apt-get install busybox-static"):
        write_images(tmp_path)


def test_mounted_folders_exist_hold_python_and_none_lies_in_another() -> None:
    folders = host_folders()
    assert all(folder.is_dir() for folder in folders)
    for needed in (Path(sys.base_prefix).resolve(), Path(sys.prefix).absolute(), Path(images.__file__).resolve()):
        assert any(needed.is_relative_to(folder) for folder in folders), needed
    assert not [(a, b) for a in folders for b in folders if a != b and a.is_relative_to(b)]


def test_virtual_environment_that_is_a_link_out_of_the_checkout_is_mounted_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    module = checkout / "localcluster" / "rft_local" / "images.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (checkout / "real").mkdir()
    elsewhere.mkdir()
    (checkout / "link").symlink_to(elsewhere)
    monkeypatch.setattr(images, "__file__", str(module))
    monkeypatch.setattr(sys, "prefix", str(checkout / "real"))
    assert checkout / "real" not in host_folders()
    monkeypatch.setattr(sys, "prefix", str(checkout / "link"))
    assert {checkout, checkout / "link"} <= set(host_folders())


def test_python_is_found_at_every_path_that_leads_to_it_when_the_environment_was_made_from_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, current, programs, prefix = (tmp_path / name for name in ("python3.11", "current", "programs", "venv"))
    for folder in (real, programs, prefix):
        (folder / "bin").mkdir(parents=True)
    (real / "bin" / "python3").touch()
    current.symlink_to(real)
    (programs / "bin" / "python3").symlink_to("../../current/bin/python3")
    (prefix / "bin" / "python").symlink_to(programs / "bin" / "python3")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "base_prefix", str(current))
    folders = host_folders()
    assert {real, current, programs / "bin", prefix} <= set(folders)
    assert programs not in folders, "it may be a home directory"


def test_links_of_the_skeleton_are_never_mounted_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/bin/sh")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", "/")
    folders = host_folders()
    assert {Path("/usr"), tmp_path} <= set(folders)
    assert {Path("/"), Path("/bin")}.isdisjoint(folders)
