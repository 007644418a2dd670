"""The checklist items about the repository: code, configurations, images, documentation."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from ..backend import facts
from ..config.base import inert_keys
from ..config.load import load_config, to_dict
from ..config.run_config import RunConfig
from ..files import PROJECT
from ..git import git
from ..launched import SET_BY_TORCHRUN
from ..proof.baseline import CONFIG, differing_keys, expected_path, readme_table, table
from ..run.dvc import changed_data, describe_dvc, dvc_files
from ..run.manifest import SUMS, read_sums, sha256
from .common import (
    Checked,
    NotApplicableError,
    checkout,
    cuda_environment,
    readme_section,
    requirements_table,
)

KEPT = 3
"""Maximum number of files that a finding names."""


def system_listed(project: Checked) -> str:
    """The README names the supported systems and the tools required before `make setup`."""
    root = project.root
    stated = requirements_table(root).get("System", "")
    missing = [tool for tool in ("git", "make") if not re.search(rf"\b{tool}\b", stated)]
    if missing:
        return f"README.md, Requirements, row System, does not name {', '.join(missing)}; add them"
    return ""


def hardware_stated(project: Checked) -> str:
    """The README says how much memory and disk are needed, and which GPU if one is used."""
    root = project.root
    rows = requirements_table(root)
    wanted = ["Memory", "Disk", *(["GPU"] if cuda_environment(root) else [])]
    missing = [name for name in wanted if not re.search(r"\w", rows.get(name, ""))]
    return f"README.md, Requirements, lacks {', '.join(missing)}; add the rows" if missing else ""


def deterministic(project: Checked) -> str:
    """Every configuration asks for deterministic algorithms, and the code turns them on."""
    for path, config in _configs(project):
        switches = config.determinism
        if not switches.deterministic_algorithms or getattr(switches, "cudnn_benchmark", False):
            unset = ", unset cudnn_benchmark" if hasattr(switches, "cudnn_benchmark") else ""
            return f"{path.name} turns it off; set deterministic_algorithms{unset}"
    name = facts.DETERMINISTIC.rpartition(".")[2]
    calls = [call for _, call in project.calls if _last_name(call.func) == name]
    if not calls:
        return f"no source calls {facts.DETERMINISTIC}; call it before training"
    if any(ast.unparse(call).endswith("(False)") for call in calls):
        return f"{facts.DETERMINISTIC} is called with False; drop that call"
    if any(keyword.arg == "warn_only" for call in calls for keyword in call.keywords):
        return f"{facts.DETERMINISTIC} only warns; drop warn_only"
    return ""


def loaders_seeded(project: Checked) -> str:
    """Whatever fetches batches is told from where to draw, and in which order to deliver."""
    for path, call in project.calls:
        where, name = f"{path.name}, line {call.lineno}", _last_name(call.func)
        given = {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg}
        set_here = {argument for argument, value in given.items() if value != "None"}
        if missing := facts.NEEDED_ARGUMENTS.get(name, set()) - set_here:
            return f"{where}: give {name} {sorted(missing)}"
        if given.get("deterministic") == "False":  # of tf.data
            return f"{where}: {name} delivers in any order; drop deterministic=False"
    return ""


def seeds_committed(project: Checked) -> str:
    """Every configuration, and with it its seed, is under version control."""
    root = project.root
    names = [str(path.relative_to(root)) for path, _ in _configs(project)]
    checkout(root)
    known = git(root, "ls-files", "-z", "--", *names).decode(errors="surrogateescape").split("\0")
    missing = sorted(set(names) - set(known))
    return f"not in git: {', '.join(missing)}; commit them" if missing else ""


def keys_documented(project: Checked) -> str:
    """Every key of the configuration has a docstring."""
    root = project.root
    bare = []
    for path in sorted(root.glob("src/*/config.py")):
        for section in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(section, ast.ClassDef) and _is_section(section):
                bare += [f"{section.name}.{name}" for name in _bare_fields(section)]
    return f"without a word: {', '.join(bare)}; add a docstring below each" if bare else ""


def _is_section(node: ast.ClassDef) -> bool:
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    return bool(bases & {"Section", "RunConfig"})


def _bare_fields(section: ast.ClassDef) -> Iterator[str]:
    for entry, following in zip(section.body, [*section.body[1:], None], strict=True):
        if not isinstance(entry, ast.AnnAssign):
            continue
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        # A nested section is documented by the docstrings of its keys.
        nested = re.fullmatch(r"[A-Z]\w*", ast.unparse(entry.annotation)) is not None
        if not documented and not nested:
            yield ast.unparse(entry.target)


def images_pinned(project: Checked) -> str:
    """Every image that is not built here is pinned by digest."""
    root = project.root
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r" AS ([\w-]+)$", text, re.MULTILINE))
    named = re.findall(r"^ARG \w*IMAGE\w*=(\S+)$", text, re.MULTILINE)
    named += [n for n in re.findall(r"^FROM (?:--\S+ )*(\S+)", text, re.MULTILINE) if "$" not in n]
    named += [image for image, is_built in _services(root).values() if image and not is_built]
    loose = [name for name in named if name not in stages and "@sha256:" not in name]
    return f"no digest: {', '.join(loose)}; pin tag@sha256:…" if loose else ""


def _services(root: Path) -> dict[str, tuple[str, bool]]:
    """Image of each service, and whether it is built here, merged over all compose files: one such
    as `compose.gpu.yaml` modifies services of `compose.yaml` without repeating their build.
    """
    services: dict[str, tuple[str, bool]] = {}
    for path in sorted(root.glob("*compose*.y*ml"), key=lambda path: len(path.name)):
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for name, service in (tree.get("services") or {}).items():
            service = service or {}
            image, is_built = services.get(name, ("", False))
            services[name] = (service.get("image") or image, is_built or "build" in service)
    return services


def variables_documented(project: Checked) -> str:
    """Every environment variable that code, configurations or services read is documented."""
    root = project.root
    sources = [*root.glob("configs/*.yaml"), *root.glob("compose*.yaml")]
    used = {
        name
        for path in sources
        for name in re.findall(r"\$\{([A-Z][A-Z0-9_]*)", path.read_text(encoding="utf-8"))
    }
    # Variables that tests disturb are not settings.
    read = [tree for path, tree in project.sources.items() if path.parent.name != "testing"]
    used |= {name for tree in read for name in _variables_read(tree)}
    text = (root / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))
    missing = sorted(used - named - set(SET_BY_TORCHRUN))
    return f"not in .env.example: {', '.join(missing)}; add them" if missing else ""


def _variables_read(tree: ast.Module) -> Iterator[str]:
    """Names in `os.environ["X"]`, `environ.get("X")` and `os.getenv("X")`."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Subscript) and _last_name(node.value).endswith("environ"):
            name = node.slice
        elif isinstance(node, ast.Call) and node.args and _reads_variable(node.func):
            name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value


def _reads_variable(function: ast.expr) -> bool:
    name = _last_name(function)
    if isinstance(function, ast.Attribute) and name in ("get", "pop", "setdefault"):
        return _last_name(function.value).endswith("environ")
    return name.endswith("getenv")


def expected_documented(project: Checked) -> str:
    """Seed, machine and metrics are recorded for this configuration, and shown in the README."""
    root = project.root
    path = expected_path(root)
    expected = json.loads(path.read_text(encoding="utf-8"))
    again = "; run make expected"
    for run in expected["runs"]:
        if not run["machine_class"]["cpu"] or not run["metrics"]:
            return f"{path.name} has a run without its machine or metrics{again}"
    if not expected["runs"]:
        return f"{path.name} holds no run{again}"
    now = to_dict(load_config(project.config_class, root / CONFIG))
    inert = tuple(inert_keys(project.config_class))
    changed = list(differing_keys(expected["config"], now, inert))
    if changed:
        return f"{path.name} is of another configuration ({'; '.join(changed)}){again}"
    if readme_table((root / "README.md").read_text(encoding="utf-8")) != table(expected):
        return f"README.md does not show what {path.name} holds{again}"
    return ""


def limits_listed(project: Checked) -> str:
    """The README lists the limits of reproducibility."""
    root = project.root
    if not re.search(r"^- \w", readme_section(root, "Known limits"), re.MULTILINE):
        return "README.md lists no known limits; write the section, one line each"
    return ""


def readme_sections(project: Checked) -> str:
    """The README has the sections that a newcomer needs to repeat a run."""
    root = project.root
    wanted = ("Requirements", "Setup", "Train", "Reproduce a run", "Expected results")
    missing = [title for title in wanted if not readme_section(root, title)]
    return f"README.md lacks the sections {', '.join(missing)}; write them" if missing else ""


def readme_commands(project: Checked) -> str:
    """Every make target, subcommand and configuration that the README names exists."""
    root = project.root
    text = (root / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL))
    used = {
        word
        for line in re.findall(r"^\s*make (.*?)(?: #.*)?$", blocks, re.MULTILINE)
        for word in line.split()
        if re.fullmatch("[a-z][a-z-]*", word)
    }
    used |= set(re.findall(r"`make ([a-z][a-z-]*)", text))
    missing = [f"make {name}" for name in sorted(used - _make_targets(root))]
    used = set(re.findall(r"python -m [a-z_0-9]+ ([a-z][a-z-]*)", text))
    missing += [f"subcommand {name}" for name in sorted(used - _subcommands(project))]
    used = set(re.findall(r"configs/[\w.-]+\.yaml", text))
    missing += [name for name in sorted(used) if not (root / name).is_file()]
    return f"README.md names what does not exist: {', '.join(missing)}" if missing else ""


def _make_targets(root: Path) -> set[str]:
    files = [root / name for name in ("Makefile", "environment.mk", "framework.mk")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    return {name for text in texts for name in re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)}


def _subcommands(project: Checked) -> set[str]:
    return {
        ast.literal_eval(call.args[0])
        for _, call in project.calls
        if _last_name(call.func) == "add_parser" and call.args
    }


def data_pinned(project: Checked) -> str:
    """Every file and folder under DVC is here, and is the version that git pins."""
    if not dvc_files(project.root):
        raise NotApplicableError
    try:
        facts = describe_dvc(project.root)
    except ValueError as error:
        return str(error)
    missing = [path for path, fact in facts.items() if fact["workspace"] is None]
    problems = [f"{path} is not here; make data fetches it" for path in missing]
    problems += [
        f'{path} was changed; make data ARGS="add {path}" takes it as the new version'
        for path in changed_data(facts)
    ]
    return "; ".join(problems[:KEPT])


def machinery_unedited(project: Checked) -> str:
    """No file of the template was edited; upgrades would overwrite the edits."""
    sums = read_sums(project.root)
    if not sums:
        return f"{SUMS} is missing or damaged; restore it from git"
    files = {
        path.relative_to(project.root).as_posix(): path
        for path in (project.root / "src" / PROJECT / "repro").rglob("*.py")
    }
    files |= {name: project.root / name for name in sums if (project.root / name).is_file()}
    edited = sorted(
        name
        for name in files.keys() | sums.keys()
        if name not in files or sha256(files[name].read_bytes()) != sums.get(name)
    )
    more = f" and {len(edited) - KEPT} more" if len(edited) > KEPT else ""
    named = f"{', '.join(edited[:KEPT])}{more}"
    return f"edited: {named}; move the change into a file of yours" if edited else ""


def git_clean(project: Checked) -> str:
    """The work tree is identical to the commit that a run will record."""
    root = project.root
    found = checkout(root)
    changed = found.names()
    if found.commit is None:
        return "there is no commit yet; git add --all, git commit"
    more = f" and {len(changed) - KEPT} more" if len(changed) > KEPT else ""
    named = f"not as committed: {', '.join(changed[:KEPT])}{more}"
    return f"{named}; commit them, or ignore them in .gitignore" if changed else ""


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c` and of `c`; empty if it is neither."""
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _configs(project: Checked) -> list[tuple[Path, RunConfig]]:
    paths = sorted(project.root.glob("configs/*.yaml"))
    return [(path, load_config(project.config_class, path)) for path in paths]
