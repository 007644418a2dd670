"""The template's logic: total, pure functions over `data/` for prompts, hooks and files.

Everything is read from `data/` at call time, never at import, and `needs_cookiecutter_2_2.py` reads
this file again: `cruft update` renders two versions of the template in one process. Filters never
raise; they return a placeholder and `problems` refuses it.
"""

import json
import keyword
import os
import re
import sys
import textwrap
import unicodedata
from functools import cache
from pathlib import Path

from cookiecutter.exceptions import FailedHookException
from jinja2.ext import Extension

ROOT = Path(__file__).resolve().parent
PROJECT_FOLDER = "{{cookiecutter.project_slug}}"
SLUG_LENGTH = 40
"""Limit for new projects: with a longer name, import lines would become too long."""
FRAMEWORKS = ("torch", "tensorflow")
"""Keys of a row of the matrix, one of which has its version."""
LOCKED_PLATFORMS = ("linux-x86_64", "linux-aarch64", "macos-arm64")
LOCKED_NAME = "locked-project"
"""The project name in shipped locks."""
PACKAGE = "[[package]]\n"
PYTORCH_PLATFORMS = {
    "linux_x86_64": "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "linux_aarch64": "sys_platform == 'linux' and platform_machine == 'aarch64'",
}


class TemplateLogic(Extension):
    """Kept for cookiecutter's own replay files from 0.1.0, which name this class."""

    def __init__(self, environment):
        super().__init__(environment)
        from template_guard import install as guard  # only here: see `needs_cookiecutter_2_2.py`

        install(environment)
        guard(environment)


def install(environment):
    """Register the functions below with Jinja."""
    environment.filters |= {
        "slug": slug,
        "quote": quote,
        "one_line": one_line,
        "paragraph": paragraph,
        "image_name": image_name,
    }
    environment.globals |= {
        "checked": checked,
        "derived": derived,
        "checked_slug": checked_slug,
        "problems": problems,
        "warnings": warnings,
        "next_steps": next_steps,
        "template_files": template_files,
        "answers_file": answers_file,
        "lock_is_shipped": lock_is_shipped,
        "stack": stack,
        "manager": manager,
        "starter": starter,
        "spdx": spdx,
        "pins": pins,
        "tool": tool,
        "image": image,
        "cutoff": cutoff,
        "lock": lock,
        "tool_lock": tool_lock,
        "python": python,
        "locked_environments": locked_environments,
        "torch_marker": torch_marker,
        "conda_name": conda_name,
        "conda_index": conda_index,
        "conda_torch": conda_torch,
        "pixi_torch": pixi_torch,
        "requirements": requirements,
    }


# --- text ------------------------------------------------------------------------------------


def slug(text):
    """A valid slug, of lower-case ASCII with dashes, from any text."""
    plain = unicodedata.normalize("NFKD", str(text)).encode("ascii", "ignore").decode().lower()
    dashed = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    dashed = re.sub(r"^[0-9-]+", "", dashed)[:SLUG_LENGTH].strip("-") or "ml-project"
    if not list(_slug_problems(dashed)):
        return dashed
    # A module's name would only be refused after the last question, so do not propose it.
    return f"{dashed[: SLUG_LENGTH - len('-project')].strip('-')}-project"


def quote(text):
    """Text as a double-quoted string that TOML, YAML and JSON read back exactly."""
    quoted = json.dumps(str(text), ensure_ascii=False)
    return "".join(char if _plain(char) else _escape(char) for char in quoted)


def one_line(text):
    """Text with spaces for line breaks: for headings, and for metadata of one line."""
    return " ".join(str(text).splitlines())


def paragraph(text, indent=""):
    """Words in lines of at most 100 columns; all but the first begin with `indent`. What stands
    between backticks stays in one line."""
    words = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), " ".join(text.split()))
    kept = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(words, 100, subsequent_indent=indent, **kept).replace("\0", " ")


def image_name(given):
    """A slug as an image name, in which separators must not repeat."""
    return re.sub(r"[-_]+", "-", str(given))


def _plain(char):
    # Cc: control; Cs: surrogates; Zl, Zp: line breaks to YAML; non-characters end a YAML stream.
    category = unicodedata.category(char)
    is_non_character = ord(char) & 0xFFFE == 0xFFFE or char == "\ufeff"
    return category not in ("Cc", "Cs", "Zl", "Zp") and not is_non_character


def _escape(char):
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


# --- data ------------------------------------------------------------------------------------


def releases():
    """The releases of the matrix, without those only proposed by `make matrix`."""
    return [row for row in _data("stacks")["releases"] if row["status"] != "proposed"]


def stack_names():
    """Every row of the matrix by its name, in menu order."""
    return _stack_names(*_file("stacks"))


@cache
def _stack_names(*_file):
    # A bake asks for them two hundred times.
    return {
        f"{release_name(release)}-{variant}": (release, variant)
        for release in releases()
        for variant in release["variants"]
    }


def framework_of(release):
    """The key of the framework that a row is a release of."""
    return next(name for name in FRAMEWORKS if name in release)  # called too often to ask a file


def release_name(release):
    """A release in the names of stacks and folders: `torch-2.13.0`."""
    name = framework_of(release)
    return f"{name}-{release[name]}"


def release_title(release):
    """A release for people: `PyTorch 2.13.0`."""
    name = framework_of(release)
    return f"{_data('stacks')['frameworks'][name]['name']} {release[name]}"


def stack(name):
    """The facts of one row: those of its release, with one entry per environment in `accelerators`.

    An unknown name gives the first row; `problems` refuses it.
    """
    return _stack(name, *_file("stacks"))


@cache
def _stack(name, *_file):
    # A bake asks for its row fifty times, and only reads it.
    data = _data("stacks")
    names = stack_names()
    name = name if name in names else next(iter(names))
    release, variant = names[name]
    environments = {"cpu": "cpu"} if variant == "cpu" else {"cuda": variant, "cpu": "cpu"}
    return {
        **release,
        "name": name,
        "framework": framework_of(release),
        "of": data["frameworks"][framework_of(release)],
        "version": release[framework_of(release)],
        "variant": variant,
        "label": stack_label(name),
        "default_accelerator": next(iter(environments)),
        "cuda": data["accelerators"][variant]["cuda"],
        "min_driver": data["accelerators"][variant]["min_driver"],
        "generations": _generations(release, variant),
        "accelerators": {
            key: _accelerator(data, release, value) for key, value in environments.items()
        },
    }


def stack_label(name):
    """The label of a row in the menu."""
    release, variant = stack_names()[name]
    title = release_title(release)
    if variant == "cpu":
        return f"{title}, CPU only: no GPU needed"
    facts = _data("stacks")["accelerators"][variant]
    cuda = ".".join(facts["cuda"].split(".")[:2])
    driver = facts["min_driver"].split(".")[0]
    generations = _generations(release, variant)
    label = f"{title}, CUDA {cuda}: {generations}, driver {driver}+"
    return f"{label} (default)" if name == next(iter(stack_names())) else label


def spdx(licence):
    """The SPDX expression of a licence answer."""
    return _data("licenses")["licenses"].get(licence, {}).get("spdx", "")


def manager(name):
    """The row of a dependency manager; an unknown name gives the first one."""
    rows = _data("managers")["managers"]
    return {"name": name, **(rows.get(name) or next(iter(rows.values())))}


def starter(name):
    """The row of a starter; an unknown name gives the first one."""
    rows = _data("starters")["starters"]
    return rows.get(name) or next(iter(rows.values()))


def pins(*groups):
    """Names and versions of the packages in `groups`, by name."""
    packages = _data("packages")
    return dict(sorted(pair for group in groups for pair in packages[group].items()))


def tool(name):
    """The pinned version of a tool that is not part of the environment."""
    return _data("packages")["tools"][name]


def python(release):
    """The patch release of a Python that images and CI install."""
    return _data("packages")["pythons"][release]


def locked_environments(answers):
    """What the lock of each environment must be: keys of `[tool.repro.environments.*]` as TOML."""
    row = stack(answers["stack"])
    by_manager = manager(answers["dependency_manager"])["cuda_platforms"]
    environments = {}
    framework = row["framework"]
    for name, facts in row["accelerators"].items():
        versions = {"linux": facts["build"], "macos": row["version"]}
        wanted = {
            "platforms": _cpu_platforms(answers),
            framework: versions,
            "index": facts["index"],
        }
        if name == "cuda":
            wanted["platforms"] = [p for p in facts["platforms"] if p in by_manager]
            wanted[framework] = {"linux": facts["build"]}
            for key in ("cuda", "cudnn", "nccl", "min_driver", "compute_capability"):
                wanted[key] = facts.get(key)
        environments[name] = {key: _toml(value) for key, value in wanted.items() if value}
    return environments


def _cpu_platforms(answers):
    # A shipped lock cannot include a platform for which no hash of the wheel is known.
    release, _ = stack_names()[stack(answers["stack"])["name"]]
    known = release.get("index_wheels", {}).get("cpu", {})
    python = answers["python_version"]
    if framework_of(release) != "torch":
        return list(LOCKED_PLATFORMS)  # all of it is on PyPI
    ships = manager(answers["dependency_manager"])["shipped_locks"]
    if not ships or python not in known.get("linux_x86_64", {}):
        return list(LOCKED_PLATFORMS)
    missing = {"linux-aarch64"} if python not in known["linux_aarch64"] else set()
    return [platform for platform in LOCKED_PLATFORMS if platform not in missing]


def requirements(answers, environment):
    """What an environment needs of its framework: requirements with markers (PEP 508)."""
    row = stack(answers["stack"])
    facts = row["accelerators"][environment]
    if row["framework"] == "torch":
        found = [f"torch=={facts['build']} ; {torch_marker(answers, environment)}"]
        on_macos = f"torch=={row['version']} ; sys_platform == 'darwin'"
        return [*found, on_macos] if environment == "cpu" else found
    linux = "sys_platform == 'linux' and platform_machine"
    keras, here = f"keras=={row['keras']}", f"{linux} == 'x86_64'"
    if environment == "cuda":
        # By name and not by TensorFlow's extra, which takes what is newest.
        libraries = {**facts["toolkit"], "nvidia-cudnn-cu12": facts["cudnn"]}
        libraries["nvidia-nccl-cu12"] = facts["nccl"]
        named = [f"{name}=={version} ; {here}" for name, version in sorted(libraries.items())]
        return [keras, *named, f"tensorflow=={facts['build']} ; {here}"]
    # On x86-64 Linux the package `tensorflow` is the CUDA build; elsewhere it is the only one.
    elsewhere = f"({linux} == 'aarch64') or sys_platform == 'darwin'"
    named = [f"tensorflow=={facts['build']} ; {elsewhere}"]
    return [keras, *named, f"tensorflow-cpu=={facts['build']} ; {here}"]


def torch_marker(answers, environment, by_machine=False):
    """A marker for the Linux machines on which an environment takes its PyTorch.

    `by_machine` lists them one by one: otherwise poetry also resolves for machines that nobody has,
    where the CUDA packages do not pin each other, and locks two versions of one package.
    """
    platforms = locked_environments(answers)[environment]["platforms"]
    machines = [m for m in ("x86_64", "aarch64") if f'"linux-{m}"' in platforms]
    if len(machines) == 2 and not by_machine:
        return "sys_platform == 'linux'"
    named = " or ".join(f"platform_machine == '{machine}'" for machine in machines)
    return f"sys_platform == 'linux' and {f'({named})' if len(machines) == 2 else named}"


def _toml(value):
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value)


def image(name):
    """An auxiliary image by tag and digest."""
    return _data("packages")["images"][name]


def cutoff():
    """Locks of this version of the template contain no package newer than this."""
    return _data("packages")["cutoff"]


def lock(answers, file):
    """The text of the lock file shipped for these answers, or nothing."""
    path = _lock_path(answers, file)
    return _named(_whole_lock(path), answers).rstrip("\n") if path else ""


def tool_lock(name):
    """The lock of a tool with a separate environment, whatever the manager."""
    path = ROOT / "data" / "locks" / "tools" / f"{name}.txt"
    return path.read_text(encoding="utf-8").rstrip("\n")


def lock_is_shipped(answers, environment):
    """Whether the project starts with the lock of an environment, `cpu` or `cuda`."""
    files = manager(answers["dependency_manager"])["shipped_locks"]
    if stack(answers["stack"])["framework"] != "torch":
        files = [file for file in files if not file.startswith("torch-")]
    paths = [_lock_path(answers, file.format(environment=environment)) for file in files]
    return bool(paths) and all(paths)


def _lock_path(answers, file):
    release, variant = stack_names().get(answers["stack"], ({"torch": ""}, ""))
    if file.endswith("cuda.txt") and variant != release.get("pypi_default"):
        return None
    if file.endswith("cpu.txt") and framework_of(release) == "torch":
        # Without a hash for this Python, no wheel would match the file.
        known = release.get("index_wheels", {}).get("cpu", {}).get("linux_x86_64", {})
        if answers["python_version"] not in known:
            return None
    folder = ROOT / "data" / "locks" / answers["dependency_manager"]
    paths = (
        folder / answers["stack"] / answers["python_version"] / file,
        folder / release_name(release) / file,
        folder / file,
    )
    return next((path for path in paths if path.is_file()), None)


def _whole_lock(path):
    """A stored lock, with its references to packages (`@file`) replaced by their text."""
    text = path.read_text(encoding="utf-8")
    packages = path.parents[2] / "packages"

    def package(match):
        return PACKAGE + (packages / match[1]).read_text(encoding="utf-8").rstrip("\n")

    return re.sub(r"^@(\S+)$", package, text, flags=re.MULTILINE)


def _named(text, answers):
    """A shipped lock renamed for this project, with its packages in alphabetical order."""
    name = re.sub(r"[-_]+", "-", answers["project_slug"])
    stand_in = LOCKED_NAME
    if f'name = "{stand_in}"' not in text:
        return text
    text = text.replace(f"extra-{len(stand_in)}-{stand_in}-", f"extra-{len(name)}-{name}-")
    head, *packages = text.replace(f'"{stand_in}"', f'"{name}"').split(PACKAGE)
    packages = [package.rstrip("\n") for package in packages]
    packages.sort(key=lambda package: package.split('"', 2)[1])  # stable: versions keep their order
    return PACKAGE.join([head.rstrip("\n") + "\n\n", *(f"{package}\n\n" for package in packages)])


def conda_name(name):
    """The name on conda-forge of a package on PyPI."""
    return {"matplotlib": "matplotlib-base"}.get(name, name)


def conda_index(facts):
    """The key of `environment.yml` that names the PyTorch index, where a wheel comes from it."""
    index = None if facts["on_conda"] else facts["index"]
    return f"pip-repositories:\n  - {index}" if index else "# no index but conda-forge and PyPI"


def conda_torch(facts, environment):
    """Lines of `environment.yml`: torch from conda-forge, or else the official wheel."""
    release = facts["build"].split("+")[0]
    if not facts["on_conda"]:
        lines = ["  - pip:", f"      - torch=={facts['build']} ; sys_platform == 'linux'"]
        if environment == "cpu":
            lines += [f"      - torch=={release} ; sys_platform == 'darwin'"]
        return "\n".join(lines)
    if environment == "cpu":
        return f"  - pytorch-cpu={release}"
    return f"  - pytorch-gpu={release}\n  - cuda-version={facts['conda_cuda']}"


def pixi_torch(facts, environment):
    """The feature of one environment in `pixi.toml`, by the same rule as `conda_torch`."""
    release = facts["build"].split("+")[0]
    lines = []
    if environment == "cuda":
        lines += ["[feature.cuda]", 'platforms = ["linux-64"]']
        lines += [f'system-requirements = {{ cuda = "{facts["cuda"].split(".")[0]}" }}', ""]
    if not facts["on_conda"]:
        index = f', index = "{facts["index"]}"' if facts["index"] else ""
        lines += [f"[feature.{environment}.pypi-dependencies]"]
        if environment == "cpu":
            # On macOS the one build is plain; the local tag exists on Linux only.
            lines += [f'torch = {{ version = "=={release}"{index} }}']
        else:
            lines += [f'torch = {{ version = "=={facts["build"]}"{index} }}']
    elif environment == "cpu":
        lines += ["[feature.cpu.dependencies]", f'pytorch-cpu = "=={release}"']
    else:
        lines += ["[feature.cuda.dependencies]", f'pytorch-gpu = "=={release}"']
        lines += [f'cuda-version = "{facts["conda_cuda"]}.*"']
    return "\n".join(lines)


def _accelerator(data, release, variant):
    facts = data["accelerators"][variant]
    conda_cuda = ".".join((facts["cuda"] or "").split(".")[:2])
    version = release[framework_of(release)]
    from_pypi = variant == release["pypi_default"] or framework_of(release) != "torch"
    return {
        **facts,
        "toolkit": {},
        **release["variants"][variant],
        "name": variant,
        "build": version if from_pypi else f"{version}+{variant}",
        "index": None if from_pypi else facts["index"],
        "index_name": f"pytorch-{variant}",
        "conda_cuda": conda_cuda,
        "on_conda": (conda_cuda or "cpu") in release["conda_forge"],
    }


def _generations(release, variant):
    capability = release["variants"][variant].get("compute_capability")
    if not capability:
        return "none"
    low, high = (_data("stacks")["gpu_generations"][value] for value in capability)
    return f"{low} to {high}"


def _data(name):
    return _parsed(*_file(name))


def _file(name):
    path = _path(ROOT, name)
    state = path.stat()
    return path, state.st_mtime_ns, state.st_size


@cache
def _path(root, name):
    # A bake asks for it six hundred times.
    return root / "data" / f"{name}.json"


@cache
def _parsed(path, _mtime_ns, _size):
    # Keyed by the file's state: `cruft update` changes the file while this module stays imported.
    return json.loads(path.read_text(encoding="utf-8"))


# --- decisions -------------------------------------------------------------------------------


def answers_file(answers):
    """The project's answers and the template's version, in the format of `--replay-file`.

    Settings of the template itself (such as `_extensions`) are left out, so that a replay takes
    them from the version that it runs. Derived answers must be included: cookiecutter does not
    derive any in a replay.
    """
    # In the order of the questions: a replay appends those that its file did not know.
    names = [name for name in _questions() if name in answers]
    kept = {n: str(answers[n]) for n in names if not n.startswith("_") or n.startswith("__")}
    kept.pop("__prompts__", None)
    template = {key: _data("template")[key] for key in ("name", "version")}
    return json.dumps({"template": template, "cookiecutter": kept}, indent=2)


def checked(answers):
    """Abort if the answers are invalid; else return nothing.

    Rendered with the last question, before cookiecutter creates a folder (even a slug such as `a/b`
    would create one). cookiecutter prints this exception as lines without a traceback.
    """
    _refuse([*_answer_problems(answers)])
    return ""


def checked_slug(answers):
    """Abort if the slug was typed and is invalid; else return nothing.

    Rendered with the question after the slug: nobody answers six more before it is refused. Answers
    that come all at once are checked all at once.
    """
    if _is_asking():
        slug = str(answers["project_slug"])
        _refuse([*_slug_problems(slug)] or [*_new_slug_problems(slug)])
    return ""


def _is_asking():
    # cookiecutter tells nobody whether it asks or takes defaults.
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "prompt_for_config":
        frame = frame.f_back
    return frame is not None and not frame.f_locals.get("no_input", True)


def _refuse(found):
    if found:
        raise FailedHookException("\n".join(f"error: {problem}" for problem in found))


def problems(answers):
    """One line for each reason to refuse these answers; empty if they are fine."""
    found = [*_answer_problems(answers)]
    return found if found or "_commit" in answers else _not_for_new(answers)


def warnings(answers):
    """Problems that are refused for new projects but only reported when updating old ones."""
    return _not_for_new(answers) if "_commit" in answers and not problems(answers) else []


def next_steps(answers):
    """The commands to run after generation."""
    environments = stack(answers["stack"])["accelerators"]
    shipped = all(lock_is_shipped(answers, name) for name in environments)
    setup = "make setup" if shipped else "make lock setup"
    without_gpu = f"    # without an NVIDIA GPU: {setup} ACCELERATOR=cpu"
    return [
        f"cd {answers['project_slug']}",
        "git init && git add --all && git commit --message 'First commit'",
        setup + (without_gpu if "cuda" in environments else ""),
        "make train verify",
    ]


def template_files(answers):
    """The paths of the files that cookiecutter generates, overlays included."""
    folder, package = f"{ROOT}/{PROJECT_FOLDER}", str(answers["project_slug"]).replace("-", "_")
    names = (
        f"{root}/{name}"[len(folder) + 1 :] for root, _, files in os.walk(folder) for name in files
    )
    return sorted(name.replace("{{cookiecutter.__package}}", package) for name in names)


def _answer_problems(answers):
    unknown = list(_choice_problems(answers))
    yield from unknown
    yield from _slug_problems(str(answers["project_slug"]))
    yield from _text_problems(answers)
    if not unknown:
        yield from _row_problems(answers)
        yield from _starter_problems(answers)
        yield from _derived_problems(answers)


def _questions():
    return json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))


def derived(answers):
    """The answers that follow from the others."""
    return {
        "__package": str(answers["project_slug"]).replace("-", "_"),
        "__accelerator": stack(answers["stack"])["default_accelerator"],
        "__framework": stack(answers["stack"])["framework"],
    }


def _derived_problems(answers):
    # Replay files also contain derived answers, which name folders.
    for name, value in derived(answers).items():
        if answers.get(name, value) != value:
            yield f"{name} {quote(answers[name])} must be {value}, by the other answers"


def _choice_problems(answers):
    for name, allowed in _questions().items():
        if isinstance(allowed, list) and not name.startswith("_") and answers[name] not in allowed:
            yield f"{name} {quote(answers[name])} is unknown; choose one of {', '.join(allowed)}"


def _slug_problems(given):
    package = given.replace("-", "_")
    reserved = _data("reserved")
    rule = "use a-z, 0-9, - and _, starting with a letter and ending with a letter or digit"
    # Projects of 0.1.0 and 0.2.0 may have 64 letters; `_not_for_new` refuses what those have more.
    if not re.fullmatch(r"[a-z]([a-z0-9_-]{0,62}[a-z0-9])?", given):
        length = f"at most {SLUG_LENGTH} characters"
        return [f"project_slug {quote(given)} cannot be a package name; {rule}, {length}"]
    for kind, names in (
        ("a Python keyword", {name.lower() for name in keyword.kwlist}),
        ("a module of Python's standard library", reserved["stdlib"]),
        ("the name of a dependency", reserved["dependencies"]),
        ("a module that a dependency brings", reserved["modules"]),
        ("a file or folder of the project itself", reserved["project"]),
        ("a reserved file name on Windows", reserved["windows"]),
    ):
        if package in names:
            return [f'project_slug "{given}" is {kind}; choose another, such as "{given}-project"']
    return []


def _text_problems(answers):
    for name in ("project_name", "description", "author_name"):
        text = answers[name]
        if not isinstance(text, str):
            yield f"{name} must be text, got {quote(text)}"
            continue
        if not text.strip():
            yield f"{name} is empty; give it some text"
        if any(unicodedata.category(char) == "Cs" for char in text):
            yield f"{name} holds half a character (a lone surrogate); give it as UTF-8 text"


def _row_problems(answers):
    release, _ = stack_names()[answers["stack"]]
    python, manager = answers["python_version"], answers["dependency_manager"]
    if python not in release["python"]:
        alike = [r for r in releases() if framework_of(r) == framework_of(release)]
        newest = next((release_title(r) for r in alike if python in r["python"]), None)
        yield (
            f"stack {answers['stack']} has no wheels for Python {python}; choose python_version "
            f"{', '.join(release['python'])}{f', or a stack such as {newest}' if newest else ''}"
        )
    if manager not in (able := release.get("managers", [manager])):
        yield (
            f"stack {answers['stack']} is not on conda-forge; choose a dependency_manager of "
            f"{', '.join(able)}"
        )


def _starter_problems(answers):
    framework = answers["stack"].partition("-")[0]
    if framework not in starter(answers["starter"])["frameworks"]:
        rows = _data("starters")["starters"]
        able = [name for name, row in rows.items() if framework in row["frameworks"]]
        yield (
            f"starter {answers['starter']} is not written for stack {answers['stack']}; choose "
            f"one of {', '.join(able)}"
        )


def _not_for_new(answers):
    """Reasons to refuse a new project that still allow updating an old one."""
    return [*_new_slug_problems(str(answers["project_slug"])), *_retired(answers)]


def _new_slug_problems(given):
    if len(given) > SLUG_LENGTH:
        yield f"project_slug {quote(given)} is long; use at most {SLUG_LENGTH} characters"
    # A package with such a name hides the module, or linters sort it among modules.
    folders = ("environment", "tests", "_overlays/*/*/environment", "_overlays/*/*/tests")
    modules = {p.stem for f in folders for p in (ROOT / PROJECT_FOLDER).glob(f"{f}/*.py")}
    if given.replace("-", "_") in modules | {"conftest"}:
        another = f'choose another, such as "{given}-project"'
        yield f'project_slug "{given}" is a module of the project itself; {another}'


def _retired(answers):
    release, variant = stack_names().get(answers["stack"], ({"status": ""}, ""))
    if release["status"] == "retired":
        nearest = next(
            name
            for name, (other, kind) in stack_names().items()
            if other["status"] != "retired"
            and kind in (variant, "cpu")
            and framework_of(other) == framework_of(release)
        )
        return [f"stack {answers['stack']} is retired; the nearest supported one is {nearest}"]
    return []
