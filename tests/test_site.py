"""The site of all documents: every link leads somewhere, and a phone shows every page."""

import json
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT

from tools import engine, site

PHONE, DESKTOP = 390, 1280
FRAME = """<body><script>
const asked = new URLSearchParams(location.search), frame = document.createElement("iframe");
frame.width = asked.get("width"); frame.height = 800; frame.src = asked.get("page");
frame.onload = () => {
  const page = frame.contentDocument, said = document.createElement("pre");
  said.textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    broken: [...page.images].filter((image) => !image.naturalWidth).map((image) => image.src),
    pictures: page.images.length,
    title: page.querySelector("h1").textContent,
  });
  document.body.append(said);
};
document.body.append(frame);
</script></body>"""
BROWSER = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the site, made by the command of `make docs`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "FOLDER", tmp_path_factory.mktemp("site"))
        assert site.main() == 0
        yield site.FOLDER / "html"


def pages(folder):
    """Every page but the one for what is not found."""
    return sorted(path for path in folder.rglob("*.html") if path.name != "404.html")


def test_it_has_every_document_and_the_reference(html):
    """Guide, reference of `Run` and of the keys, decisions, changelog."""
    names = {path.relative_to(html).as_posix() for path in pages(html)}
    documents = {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert documents | {"index.html", "project/docs/your-task.html", "CHANGELOG.html"} <= names
    verbs = (html / "reference/run.html").read_text()
    for verb in ("batches", "log_step", "keep_best", "finish"):
        assert f'id="reproducible_ml.repro.run.lifecycle.Run.{verb}"' in verbs
    keys = (html / "reference/configuration.html").read_text()
    for key in ("Training.learning_rate", "Data.num_workers"):
        assert f'id="reproducible_ml.config.{key}"' in keys


def test_a_broken_link_fails(html, monkeypatch, tmp_path):
    """Whether to a page that is not there or to a heading that is not on it."""
    asked = site.linked
    monkeypatch.setattr(site, "FOLDER", tmp_path)
    monkeypatch.setattr(site, "linked", lambda *a: asked(*a) + "\n[x](index.md#no-such-heading)\n")
    assert site.main() != 0


def test_no_page_loads_anything_from_elsewhere(html):
    """No font, script or picture of another host: the site works without a network."""
    for path in pages(html):
        tags = re.findall(r"<(?:script|link|img)[^>]*>", path.read_text())
        assert [tag for tag in tags if re.search('(src|href)="(https?:)?//', tag)] == [], path


@pytest.mark.containers
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_browser_shows_every_page(html, width, tmp_path):
    """No page is wider than the window, every picture is there, and each has its heading."""
    if not shutil.which("chromium"):
        engine.install("chromium")
    (html / "frame.html").write_text(FRAME)
    handler = partial(SimpleHTTPRequestHandler, directory=html)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = {}
        for path in pages(html):
            name = path.relative_to(html).as_posix()
            if name == "frame.html":
                continue
            address = f"http://127.0.0.1:{server.server_port}/frame.html?width={width}&page={name}"
            command = [*BROWSER, f"--user-data-dir={tmp_path}", "--dump-dom", address]
            done = subprocess.run(command, capture_output=True, text=True)
            said = re.search(r"<pre>(.*)</pre>", done.stdout)
            assert said, f"{name}: {done.stderr[-2000:]}"
            seen[name] = json.loads(said[1])
        server.shutdown()
    assert len(seen) >= 15
    for name, page in seen.items():
        assert page["width"] <= width, name
        assert page["broken"] == [], name
        assert page["title"], name
    assert seen["index.html"]["pictures"] >= 3
