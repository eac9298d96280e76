"""What a release is made of: the chart verifies with the key it was signed with, bills of materials are whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.helm import CHART, ROOT, Helm

KEY = "Chart Tests"
TGZ = "rft-operator-0.1.0.tgz"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a fresh key in the keyrings that Helm reads: secret.gpg and public.gpg."""
    gpg = shutil.which("gpg")
    if gpg is None:
        pytest.skip("gpg is not installed")
    folder = tmp_path_factory.mktemp("gpg")
    folder.chmod(0o700)
    environment = {**os.environ, "GNUPGHOME": str(folder)}

    def run(*arguments: str) -> bytes:
        argv = [gpg, "--batch", "--pinentry-mode", "loopback", "--passphrase", "", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, check=True, timeout=60).stdout

    run("--quick-generate-key", KEY, "rsa2048", "sign", "never")
    (folder / "secret.gpg").write_bytes(run("--export-secret-keys", KEY))
    (folder / "public.gpg").write_bytes(run("--export", KEY))
    yield folder
    subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def release(keys: Path, helm_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that is signed with that key."""
    dist = tmp_path_factory.mktemp("release") / "dist"
    environment = {
        **os.environ,
        "DIST": str(dist),
        "HELM": str(helm_program),
        "SIGN_KEY": KEY,
        "SIGN_KEYRING": str(keys / "secret.gpg"),
    }
    argv = [ROOT / "hack" / "package.sh"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dist


def test_chart_verifies_with_the_public_key_and_no_longer_when_it_was_changed(
    release: Path, keys: Path, helm: Helm, tmp_path: Path
) -> None:
    public = keys / "public.gpg"
    assert helm.run("verify", release / TGZ, "--keyring", public).returncode == 0
    for name in (TGZ, f"{TGZ}.prov"):
        shutil.copy(release / name, tmp_path)
    with (tmp_path / TGZ).open("ab") as file:
        file.write(b"\0")
    assert helm.run("verify", tmp_path / TGZ, "--keyring", public, check=False).returncode != 0


def test_package_holds_what_is_installed_and_not_what_tests_it(release: Path, helm: Helm) -> None:
    listed = subprocess.run(["tar", "-tzf", release / TGZ], capture_output=True, text=True, check=True).stdout.split()
    names = {name.removeprefix("rft-operator/") for name in listed}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "files/rules.yaml"} <= names
    assert {f"files/dashboards/{path.name}" for path in (CHART / "files" / "dashboards").iterdir()} <= names
    assert not [name for name in names if name.startswith("ci/") or name == "values-local.yaml"]
    assert "kind: Deployment" in helm.run("template", "x", release / TGZ).stdout


@pytest.mark.parametrize(("image", "must", "must_not"), [("operator", "kopf", "torch"), ("trainer", "torch", "kopf")])
def test_bill_of_materials_names_every_package_of_the_image_at_its_pinned_version(
    release: Path, image: str, must: str, must_not: str
) -> None:
    bill = json.loads((release / f"sbom-{image}.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    parts = {each["name"]: each["version"] for each in bill["components"]}
    listed = (release / f"requirements-{image}.txt").read_text(encoding="utf-8")
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", listed, flags=re.MULTILINE))
    assert parts == wanted
    assert must in parts
    assert must_not not in parts
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = set(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", pinned, flags=re.MULTILINE))
    assert set(parts.items()) <= pins, sorted(set(parts.items()) - pins)


def test_checksums_are_those_of_every_file(release: Path) -> None:
    lines = (release / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.name: path for path in release.iterdir() if path.name != "SHA256SUMS"}
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert {TGZ, f"{TGZ}.prov"} <= files.keys()


def test_packaging_is_refused_when_the_keyring_of_a_key_is_not_named(helm_program: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "DIST": str(tmp_path / "dist"), "HELM": str(helm_program), "SIGN_KEY": KEY}
    argv = [ROOT / "hack" / "package.sh"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "SIGN_KEYRING must name the keyring" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_packaging_says_what_to_do_when_nothing_is_set_up(helm_program: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HELM": str(helm_program), "RFT_CACHE_DIR": str(tmp_path)}
    argv = [ROOT / "hack" / "package.sh"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"error: uv is not in {tmp_path}; run: make setup\n"
