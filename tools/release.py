"""Release the template: the version, its section of the changelog, a commit and a tag.

python tools/release.py VERSION                                   (`make release VERSION=0.3.0`)

The commit says `Release VERSION`, by which the upgrade tests find releases. Another commit starts
the next version, so that every project names the version it was really generated from. Nothing is
pushed.
"""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FACTS, CHANGELOG = ROOT / "data" / "template.json", ROOT / "CHANGELOG.md"


def main(version: str) -> None:
    """Release, or report in one line why not."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"error: VERSION is {version!r}; give one such as 0.3.0")
    if git("status", "--porcelain"):
        sys.exit("error: the tree has changes; commit them first")
    text = CHANGELOG.read_text(encoding="utf-8")
    heading = f"## {version} (unreleased)\n"
    if heading not in text:
        sys.exit(f"error: CHANGELOG.md has no section {heading.strip()!r}; write what changed")
    today = datetime.datetime.now(tz=datetime.UTC).date()
    write(version, text.replace(heading, f"## {version} ({today})\n"))
    git("commit", "--all", "--message", f"Release {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    major, minor, _ = version.split(".")
    following = f"{major}.{int(minor) + 1}.0"
    text = CHANGELOG.read_text(encoding="utf-8")
    opened = text.replace("## ", f"## {following} (unreleased)\n\n- Nothing yet.\n\n## ", 1)
    write(f"{following}.dev0", opened)
    git("commit", "--all", "--message", f"Open {following}")
    print(f"released {version}; to publish: git push --follow-tags")


def write(version: str, changelog: str) -> None:
    """Write the version and the changelog."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    text = json.dumps({**facts, "version": version}, indent=2)
    FACTS.write_text(f"{text}\n", encoding="utf-8")
    CHANGELOG.write_text(changelog, encoding="utf-8")


def git(*arguments: str) -> str:
    """Run git in this repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
