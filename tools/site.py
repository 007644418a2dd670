"""Make the site in `build/site/html` from the documents of the template and of a new project.

python tools/site.py        (`make docs`)

The pages are the Markdown files as they lie in the repository; only links to files that are no
pages lose their target. The reference comes from docstrings. MkDocs fails on a broken link.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cookiecutter.main import cookiecutter  # noqa: E402  (after the path)

FOLDER = ROOT / "build" / "site"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
NAVIGATION = [
    {"Start": "index.md"},
    {
        "A project": [
            {"Its README": "project/README.md"},
            {"Your task": "project/docs/your-task.md"},
            {"What is promised": "project/docs/reproducibility.md"},
            {"Data": "project/docs/data.md"},
            {"Many processes": "project/docs/distributed.md"},
            {"Environments": "project/docs/environments.md"},
            {"Containers": "project/docs/containers.md"},
            {"Upgrading": "project/docs/upgrading.md"},
            {"From version 0.2": "project/docs/from-0.2.md"},
        ]
    },
    {
        "Reference": [
            {"Run": "reference/run.md"},
            {"Configuration": "reference/configuration.md"},
        ]
    },
    {
        "The template": [
            {"Changelog": "CHANGELOG.md"},
            {"What was verified": "docs/verified.md"},
            {"Decisions": "docs/decisions.md"},
            {"Surroundings": "docs/surroundings.md"},
            {"Locks": "docs/environments.md"},
            {"Contributing": "CONTRIBUTING.md"},
        ]
    },
]
REFERENCE = {
    "run.md": (
        "# Run\n\n::: {package}.repro.run.lifecycle.Run\n\n"
        "::: {package}.repro.run.lifecycle.Result\n"
    ),
    "configuration.md": (
        "# Configuration\n\nEvery key, its type and its default, in the order of the YAML file.\n"
        "\n## Your task's keys\n\nThose of the starter `image_classification`.\n\n"
        "::: {package}.config\n\n## Keys that every run has\n\n"
        "::: {package}.repro.config.run_config\n\n::: {package}.repro.config.base\n"
    ),
}


def main() -> int:
    """Collect the pages, and have MkDocs make the site of them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    project = bake()
    pages = FOLDER / "pages"
    for source, target in documents(project).items():
        (pages / target).parent.mkdir(parents=True, exist_ok=True)
        (pages / target).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "pictures", pages / "docs" / "pictures")
    package = project.name.replace("-", "_")
    for name, text in REFERENCE.items():
        (pages / "reference").mkdir(exist_ok=True)
        (pages / "reference" / name).write_text(text.format(package=package), encoding="utf-8")
    for page in pages.rglob("*.md"):
        page.write_text(linked(page, pages), encoding="utf-8")
    settings = FOLDER / "mkdocs.yml"
    # JSON is YAML.
    settings.write_text(json.dumps(configuration(project), indent=2), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    # Without Material's notice of its successor.
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([*command, "--config-file", settings], env=environ).returncode


def bake() -> Path:
    """A project with the default answers."""
    return Path(
        cookiecutter(
            str(ROOT), no_input=True, default_config=True, output_dir=str(FOLDER / "project")
        )
    )


def documents(project: Path) -> dict[Path, str]:
    """Every document, and its page."""
    ours = {ROOT / "README.md": "index.md"}
    ours |= {ROOT / name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md")}
    ours |= {path: f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    theirs = {project / "README.md": "project/README.md"}
    theirs |= {path: f"project/docs/{path.name}" for path in (project / "docs").glob("*.md")}
    return ours | theirs


def linked(page: Path, pages: Path) -> str:
    """The text of a page, in which a link to a file that is no page is only its words."""

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        if target.startswith(("http://", "https://", "mailto:", "#")):
            return found[0]
        path, hash_mark, anchor = target.partition("#")
        if path == "README.md" and page.parent == pages:
            path = "index.md"
        if not (page.parent / path).is_file():
            return words
        return f"[{words}]({PurePosixPath(path)}{hash_mark}{anchor})"

    return LINK.sub(link, page.read_text(encoding="utf-8"))


def configuration(project: Path) -> dict:
    """The settings of MkDocs. Nothing is loaded from elsewhere: no fonts, no scripts."""
    docstrings = {
        "docstring_style": "google",
        "show_source": False,
        "show_root_heading": True,
        "show_root_full_path": False,
        "heading_level": 2,
        "members_order": "source",
        "filters": ["!^_", "!^model_config$"],
        "show_if_no_docstring": False,
        "separate_signature": True,
        "show_signature_annotations": True,
        "show_labels": False,
        "show_bases": False,
    }
    return {
        "site_name": "repro-ml-template",
        "docs_dir": "pages",
        "site_dir": "html",
        "use_directory_urls": False,
        "nav": NAVIGATION,
        "theme": {
            "name": "material",
            "font": False,
            "features": ["navigation.sections", "toc.follow", "content.code.copy"],
        },
        "plugins": [
            "search",
            {
                "mkdocstrings": {
                    "handlers": {
                        "python": {"paths": [str(project / "src")], "options": docstrings}
                    },
                    "enable_inventory": False,
                }
            },
        ],
        "markdown_extensions": ["tables", "fenced_code", "pymdownx.highlight", "sane_lists"],
        "validation": {
            "omitted_files": "warn",
            "absolute_links": "warn",
            "unrecognized_links": "warn",
            "anchors": "warn",
        },
    }


if __name__ == "__main__":
    sys.exit(main())
