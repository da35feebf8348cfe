"""What a machine lacks is said with what mends it."""

import pytest

from autograder import cli, doctor
from autograder.doctor import Finding


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "dulcourse"


def test_everything_is_looked_at(tmp_path):
    findings = doctor.examine(tmp_path, tmp_path)
    assert [finding.name for finding in findings] == [
        "python",
        "packages",
        "sandbox",
        "limits",
        "disk",
        "secrets",
        "browser",
        "gpu",
    ]
    assert all(finding.said for finding in findings)
    assert all(finding.fix for finding in findings if not finding.ok)


def test_packages_are_compared_with_the_lock(tmp_path):
    (tmp_path / "requirements.lock").write_text("# all of it\nnumpy==0.1\nno-such-thing==1.0\n")
    found = doctor.packages(tmp_path)
    assert not found.ok
    assert "numpy" in found.said
    assert "(lock: 0.1)" in found.said
    assert "no-such-thing missing" in found.said
    assert "pip install -r requirements.lock" in found.fix


def test_a_local_label_of_a_version_is_no_difference(tmp_path):
    from importlib.metadata import version

    torch = version("torch").split("+")[0]
    (tmp_path / "requirements.lock").write_text(
        f"torch=={torch}\nnumpy=={version('numpy')} ; python_version > '3'\n"
    )
    assert doctor.packages(tmp_path).said == "2 as locked"


def test_without_bubblewrap_the_fix_is_a_command(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = doctor.sandbox()
    assert not found.ok
    assert "install bubblewrap" in found.fix


def test_a_sandbox_that_does_not_start_is_explained(monkeypatch):
    monkeypatch.setattr("autograder.sandbox.available", lambda: "user namespaces are switched off; do this.")
    found = doctor.sandbox()
    assert (found.ok, found.said) == (False, "user namespaces are switched off; do this.")


def test_a_state_folder_that_others_can_read_is_found(state):
    assert doctor.state().ok
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    assert doctor.state().said == "folder mode 0755"
    assert not doctor.state().ok
    state.chmod(0o700)
    assert doctor.state().ok


def test_a_full_disk_is_found(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    assert not doctor.disk(tmp_path / "not" / "there").ok


@pytest.mark.parametrize(("optional", "status"), [(True, 0), (False, 2)])
def test_only_what_is_needed_fails(monkeypatch, capsys, tmp_path, optional, status):
    (tmp_path / "solutions").mkdir()
    finding = Finding("gpu", False, "none", "buy one", optional)
    monkeypatch.setattr(doctor, "examine", lambda course, out: [finding])
    assert cli._status(["doctor", "--course", str(tmp_path)]) == status
    assert "→ buy one" in capsys.readouterr().out
