"""Data under DVC: put there, taken away and fetched again, from a folder and from S3."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request

import lent
import pytest
from conftest import REAL_CUDA_STACK, commit
from moto.server import ThreadedMotoServer

from tools import demo

pytestmark = pytest.mark.real
ROWS = ["width,height,weight", *(f"{i % 7},{i % 11 + i / 9:.3f},{i * 2 % 13}" for i in range(120))]
TABLE = "data/table.csv"
NAMES = ["a-b", "a.b", "a/b", "ö/z.txt", "B", "deep/er/x", "deep/er.csv", ".DS_Store"]
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hidden-from-all"}


@pytest.fixture(scope="module")
def project(baked_real):
    """A project that trains on a table of its own and on a folder, both under DVC, committed."""
    made = baked_real(stack=REAL_CUDA_STACK, starter="tabular").path
    commit(made)
    lent.set_up(made)
    assert "no data is under DVC" in said(made, "data")
    assert not (made / ".envs/tool-dvc").exists()
    (made / "data").mkdir(exist_ok=True)
    (made / TABLE).write_text("\n".join(ROWS))
    for name in NAMES:
        (made / "data/raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (made / "data/raw" / name).write_text(name)
    (made / ".env").write_text(f"DVC_REMOTE={made.parent}/remote\n")
    nowhere = {"PACKAGE_INDEX": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    offline = refused(made, "data", f"ARGS=add {TABLE}", PIP_FIND_LINKS="", **nowhere)
    assert offline.startswith("error: ")
    assert not (made / ".envs/tool-dvc").exists()
    said(made, "data", f"ARGS=add {TABLE} data/raw")
    said(made, "data", "ARGS=push")
    commit(made)
    assert said(made, "doctor").splitlines()[-1].endswith(" 0 fail")
    return made


def run(project, *arguments, **environ):
    """A command in the project, with what it says on both streams."""
    if arguments[0] == "make":
        arguments += ("ACCELERATOR=cpu", f"PYTHON={sys.executable}")
    return subprocess.run(
        arguments,
        cwd=project,
        env={**demo.environment(), **environ},
        capture_output=True,
        text=True,
    )


def said(project, *words, **environ):
    """What a verb of make prints; it must succeed."""
    done = run(project, "make", *words, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(project, *words, **environ):
    """The one line that a verb of make is refused with."""
    done = run(project, "make", *words, **environ)
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1, done.stderr
    assert "hidden-from-all" not in done.stdout + done.stderr
    return lines[0]


def train(project, *arguments):
    """Train on the table, in a second."""
    names = ("data.name=file", "data.path=table.csv", "data.target=weight")
    command = [".venv/bin/python", "train.py", "--config", "configs/smoke.yaml", *names]
    return run(project, *command, *arguments)


def dvc_facts(project):
    """What the newest manifest says of the data under DVC."""
    newest = max((project / "outputs").iterdir(), key=os.path.getmtime)
    return json.loads((newest / "manifest.json").read_text())["data"]["dvc"]


def take_away(project):
    """Drop the data and DVC's own copy, so that only the remote has it."""
    (project / TABLE).unlink()
    shutil.rmtree(project / "data/raw")
    shutil.rmtree(project / ".dvc/cache")


def test_the_manifest_names_the_digests_that_dvc_wrote(project):
    """Those of a file and of a folder with odd names; and the run repeats."""
    assert train(project).returncode == 0
    facts = dvc_facts(project)
    assert facts.keys() == {TABLE, "data/raw"}
    for path, fact in facts.items():
        assert f"md5: {fact['pinned']}\n" in (project / f"{path}.dvc").read_text()
        assert fact["workspace"] == fact["pinned"]
    assert said(project, "verify").splitlines()[-1] == "IDENTICAL"


def test_a_fetched_version_gives_the_same_run(project):
    """Once only the remote has the data, the doctor says so, and `make data` brings it back."""
    take_away(project)
    assert f"{TABLE} is not here; make data fetches it" in run(project, "make", "doctor").stdout
    said(project, "data")
    assert {p.relative_to(project / "data/raw").as_posix() for p in files(project)} == set(NAMES)
    assert train(project).returncode == 0
    assert said(project, "compare").splitlines()[-1] == "IDENTICAL"


def files(project):
    """The files of the folder under DVC."""
    return [path for path in (project / "data/raw").rglob("*") if path.is_file()]


@pytest.mark.parametrize("changed", [TABLE, "data/raw/new", "data/raw/a.b"])
def test_changed_data_are_refused_or_recorded(project, changed):
    """No run begins on data that git does not pin, unless it is asked to; that one repeats, too."""
    kept = (project / TABLE).read_bytes()
    before = sorted((project / "outputs").iterdir())
    named = TABLE if changed == TABLE else "data/raw"
    try:
        (project / changed).write_text("\n".join(ROWS[:-1]))
        done = train(project)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {named} differs from what its .dvc file pins: ")
        assert len(done.stderr.splitlines()) == 1
        assert sorted((project / "outputs").iterdir()) == before
        assert f'make data ARGS="add {named}"' in run(project, "make", "doctor").stdout
        refusal = refused(project, "data")
        assert "changed here, and kept" in refusal
        assert train(project, "--allow-changes").returncode == 0
        assert dvc_facts(project)[named]["workspace"] != dvc_facts(project)[named]["pinned"]
        assert said(project, "verify").splitlines()[-1] == "IDENTICAL"
        compared = run(project, "make", "compare").stdout
        assert f"dvc.{named}.workspace" in compared
    finally:
        said(project, "data", "ARGS=pull --force")
    assert (project / TABLE).read_bytes() == kept


@pytest.fixture(scope="module")
def bucket():
    """The address of an S3 server on loopback, with a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT")).close()
    yield address
    server.stop()


def test_s3_is_a_remote_like_any_other(project, bucket):
    """Pushed to a bucket, taken away, fetched: with the keys of `.env`, which nothing prints."""
    kept = (project / ".env").read_text()
    settings = {**KEYS, "DVC_REMOTE": "s3://bucket/path", "AWS_ENDPOINT_URL": bucket}
    try:
        (project / ".env").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        assert "pushed" in said(project, "data", "ARGS=push")
        take_away(project)
        said(project, "data")
        assert (project / TABLE).read_text() == "\n".join(ROWS)
    finally:
        (project / ".env").write_text(kept)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"DVC_REMOTE": "s3://bucket/x", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "reached"),
        ({"DVC_REMOTE": "s3://none/x"}, "bucket does not exist"),
        ({"DVC_REMOTE": "nowhere"}, f"{TABLE}: the remote lacks the version"),
        ({"DVC_REMOTE": "odd://x"}, "odd://"),
    ],
)
def test_a_remote_that_does_not_answer_is_one_line(project, bucket, settings, reason):
    """No data is lost, and no key is printed."""
    moved = project / "data/moved"
    (project / TABLE).rename(moved)
    shutil.move(project / ".dvc/cache", project / ".dvc/tmp/cache")
    try:
        how = {"AWS_ENDPOINT_URL": bucket, **KEYS, **settings}
        assert reason in refused(project, "data", **how)
    finally:
        shutil.rmtree(project / ".dvc/cache", ignore_errors=True)
        shutil.move(project / ".dvc/tmp/cache", project / ".dvc/cache")
        moved.rename(project / TABLE)
