"""What stands between a template and what goes wrong around it: answers, interrupts, full disks.

cookiecutter renders answers as templates, writes files one by one into the folder that it is to
make, and prints tracebacks. Nothing here changes what is generated.
"""

import atexit
import ctypes
import fnmatch
import hashlib
import json
import re
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import cookiecutter
from cookiecutter import generate, hooks, prompt
from cookiecutter.exceptions import FailedHookException
from jinja2 import FileSystemLoader

ROOT = Path(__file__).resolve().parent
PROJECT_FOLDER = "{{cookiecutter.project_slug}}"
_NAMES = re.compile(r"\{\{cookiecutter\.(project_slug|__package)\}\}")
_ANSWER = re.compile(r"\{\{ cookiecutter\.(\w+) \}\}")
MORE = "more"
_broken_off = []
"""What ended a generation before its end: a signal, an error."""


def install(environment):
    """Guard everything that this environment renders."""
    _require_cookiecutter()
    _shorten_the_menu()
    _run_the_hook_here(environment)
    _close(environment)
    environment.from_string = _explained(environment)
    environment.get_template = _quickly(environment)


def _require_cookiecutter():
    facts = json.loads((ROOT / "data" / "template.json").read_text(encoding="utf-8"))
    wanted = facts["cookiecutter"]
    if _numbers(cookiecutter.__version__) < _numbers(wanted):
        raise FailedHookException(
            f"error: this is cookiecutter {cookiecutter.__version__}; the template needs {wanted} "
            "or newer: pip install --upgrade cookiecutter"
        )


def _shorten_the_menu():
    """Ask for the stack in two steps, so that a menu fits a terminal of 24 lines.

    The rows of the default's release come first; other releases of its framework are behind one
    more row, and those of another framework behind a row of its name.
    """
    ask = prompt.read_user_choice
    if getattr(ask, "is_ours", False):
        return

    def asked(name, options, prompts=None, *rest):
        release, framework = options[0].rpartition("-")[0], options[0].partition("-")[0]
        first = [row for row in options if row.rpartition("-")[0] == release]
        behind = {}
        for row in options[len(first) :]:
            behind.setdefault(row.partition("-")[0], []).append(row)
        if name != "stack" or not behind:
            return ask(name, options, prompts, *rest)
        labels = dict((prompts or {}).get(name) or {})
        rows = {}
        for other, others in behind.items():
            key = MORE if other == framework else other
            rows[key] = others
            title = labels.get(others[0], other).split(" ")[0]
            labels[key] = "another release …" if key == MORE else f"{title} …"
        prompts = {**(prompts or {}), name: labels}
        answer = ask(name, [*first, *rows], prompts, *rest)
        return ask(name, rows[answer], prompts, *rest) if answer in rows else answer

    asked.is_ours = True
    prompt.read_user_choice = asked


def _run_the_hook_here(environment):
    """Run our hook in this process, which is the only one to stop then when a signal comes.

    Another Python would take longer to start than the hook works. Other hooks, those of an earlier
    version that `cruft` renders in this process among them, are cookiecutter's business.
    """
    elsewhere = getattr(hooks.run_script_with_context, "elsewhere", hooks.run_script_with_context)
    source = (ROOT / "hooks" / "post_gen_project.py").read_text(encoding="utf-8")

    def run(script_path, cwd, context):
        if Path(script_path).read_text(encoding="utf-8") != source:
            return elsewhere(script_path, cwd, context)
        namespace = {"__name__": "post_gen_project"}
        exec(compile(source, str(script_path), "exec"), namespace)
        answers, known = context["cookiecutter"], environment.globals
        files, steps = known["template_files"](answers), known["next_steps"](answers)
        namespace["arrange"](Path(cwd), answers, files, steps)

    run.elsewhere = elsewhere
    hooks.run_script_with_context = run


def _numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _close(environment):
    """Keep expressions in answers from reaching Python.

    Stock cookiecutter renders the answers that it gets without asking (`name=value`, `cruft`):
    `{{ cycler.__init__.__globals__ }}` in one would run code. So no attribute that begins with `_`
    is looked up; keys of mappings are what they are.
    """
    plain = {"getattr": environment.getattr, "getitem": environment.getitem}

    def guarded(way):
        def look_up(value, name):
            if not (isinstance(name, str) and name.startswith("_")):
                return plain[way](value, name)
            if isinstance(value, Mapping) and name in value:
                return value[name]
            return environment.undefined(obj=value, name=name)

        return look_up

    environment.getattr, environment.getitem = guarded("getattr"), guarded("getitem")


def _explained(environment):
    """Jinja's `from_string`, whose failures cookiecutter prints as one line without a traceback."""
    from_string = environment.from_string

    def refusal(source, error):
        quote, one_line = (environment.filters[name] for name in ("quote", "one_line"))
        return FailedHookException(
            f"error: {quote(str(source)[:60])} is read as a Jinja template and is none "
            f"({one_line(error)[:200]}); write {{{{ '{{{{' }}}} for two braces"
        )

    def explained(source, *arguments, **options):
        _ask_nothing_in_a_replay()
        if _is_simple(source):
            return _Simple(source)
        try:
            template = from_string(source, *arguments, **options)
        except Exception as error:
            raise refusal(source, error) from None
        plain = template.render

        def render(*arguments, **context):
            if source == PROJECT_FOLDER:
                _before_anything_is_made(environment, context["cookiecutter"])
            try:
                return plain(*arguments, **context)
            except FailedHookException:
                raise
            except Exception as error:
                raise refusal(source, error) from None

        template.render = render
        return template

    return explained


class _Simple:
    """A template of one line that names the slug or the package at most, as most paths do.

    Jinja compiles each such text to Python: a fifth of the time of a generation.
    """

    def __init__(self, source):
        self.source = source

    def render(self, **context):
        return _NAMES.sub(lambda name: str(context["cookiecutter"][name[1]]), self.source)


def _is_simple(source):
    return (
        isinstance(source, str)
        and source != PROJECT_FOLDER
        and source.splitlines() == [source]
        and "{" not in _NAMES.sub("", source)
    )


def _quickly(environment):
    """`get_template`, without Jinja for a file whose only tags are answers, as in most tests."""
    get_template = environment.get_template

    def quickly(name, *arguments, **options):
        path = Path(name)
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            if not re.search(r"\{[{%#]", _ANSWER.sub("", text)):
                return _Plain(text, lambda: get_template(name, *arguments, **options))
        return get_template(name, *arguments, **options)

    return quickly


class _Plain:
    """A file that names answers, and has no other tag."""

    def __init__(self, text, by_jinja):
        self.text, self.by_jinja = text, by_jinja

    def render(self, **context):
        answers = context["cookiecutter"]
        if not all(name in answers for name in _ANSWER.findall(self.text)):
            return self.by_jinja().render(**context)  # which says what is missing
        return _ANSWER.sub(lambda name: str(answers[name[1]]), self.text)


def _ask_nothing_in_a_replay():
    """Take the default of a choice that an answers file does not know, as `--no-input` does.

    cookiecutter would ask for it, and a script that replays has nobody to answer. It renders the
    choices just before it looks whether it may ask.
    """
    asking = _frame("prompt_choice_for_config")
    if asking is None or asking.f_locals["no_input"]:
        return
    command = _frame("cookiecutter")
    if command is not None and command.f_locals.get("replay"):
        asking.f_locals["no_input"] = True
        if sys.version_info < (3, 13):  # there, the line above has written a copy
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(asking), ctypes.c_int(0))


def _frame(name):
    """The innermost call of a function of cookiecutter that is under way, if any."""
    frame = sys._getframe()
    while frame and frame.f_code.co_name != name:
        frame = frame.f_back
    return frame


def _before_anything_is_made(environment, answers):
    """The last moment before a folder is made; a replay comes by no other."""
    _answer_new_questions(answers)
    if found := environment.globals["problems"](answers):
        raise FailedHookException("\n".join(f"error: {problem}" for problem in found))
    for name, value in environment.globals["derived"](answers).items():
        answers.setdefault(name, value)
    for warning in environment.globals["warnings"](answers):
        print(f"warning: {warning}", file=sys.stderr)
    options = _options()
    folder = Path(options.get("output_dir", "."), answers["project_slug"]).resolve()
    _copy_what_holds_no_jinja(answers, folder)
    if options.get("overwrite_if_exists"):
        _make_room(folder)
    if options.get("skip_if_file_exists"):
        _keep_existing(folder, answers)
        answers["_skipped_sums"] = _skipped_sums(folder, answers, environment)
    if threading.current_thread() is threading.main_thread():
        _name_errors()
    if options.get("accept_hooks", True) and not options.get("keep_project_on_failure"):
        _all_or_nothing(folder)


def _answer_new_questions(answers):
    """Give a question that an older answers file does not know its default: the first choice."""
    for name, allowed in _settings().items():
        if isinstance(allowed, list) and not name.startswith("_"):
            answers.setdefault(name, allowed[0])


def _copy_what_holds_no_jinja(answers, folder):
    """Have cookiecutter copy it rather than render it, and leave out what nobody has chosen.

    Set here because a replay file brings the patterns of the version that wrote it.
    """
    overlays = (ROOT / PROJECT_FOLDER / "_overlays").glob("*/*")
    others = [path for path in overlays if str(answers.get(path.parent.name)) != path.name]
    names = [path.relative_to(ROOT / PROJECT_FOLDER).as_posix() for path in sorted(others)]
    answers["_copy_without_render"] = [*_settings()["_copy_without_render"], *names]
    generate.shutil = _Copying({folder / name for name in names})


class _Copying:
    """`shutil` for cookiecutter, which cannot leave a folder out: the hook would have to remove the
    overlays of all other answers again, a twentieth of the time of a generation.

    `others` are folders of one project: what is generated next in this process is another one.
    """

    def __init__(self, others):
        self.others = others

    def __getattr__(self, name):
        return getattr(shutil, name)

    def copytree(self, source, target, *arguments, **options):
        if Path(target).resolve() in self.others:
            return target
        return shutil.copytree(source, target, *arguments, **options)


def _settings():
    return json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))


def _make_room(folder):
    """Drop what a killed generation left of our own, and nothing that is somebody else's."""
    left = folder / "_overlays"
    if not left.exists():
        return
    ours = {path.name for path in (ROOT / PROJECT_FOLDER / "_overlays").iterdir()}
    if not left.is_dir() or {path.name for path in left.iterdir()} - ours:
        raise FailedHookException(f"error: {left} is in the way: the template works in that folder")
    shutil.rmtree(left)


def _options():
    """What cookiecutter was told; it hands its options to nobody."""
    frame = _frame("generate_files")
    return frame.f_locals if frame else {}


def _keep_existing(folder, answers):
    """Have `--skip-if-file-exists` skip what is copied, too: cookiecutter overwrites that.

    A file that is rendered is skipped where it exists; so only those that do not exist are still
    named to be copied. The hook that puts overlays in place is told as well.
    """
    project = ROOT / PROJECT_FOLDER
    names = [p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()]
    answers["_copy_without_render"] = [
        name
        for name in names
        if any(fnmatch.fnmatch(name, pattern) for pattern in answers["_copy_without_render"])
        and not (folder / name.replace("{{cookiecutter.__package}}", answers["__package"])).exists()
    ]
    answers["_skip_if_file_exists"] = True


def _skipped_sums(folder, answers, environment):
    """sha256 that the template's own files have in a project like this, of those that are kept.

    Not read from the project: a generation that was stopped may have cut one of them off.
    """
    project = ROOT / PROJECT_FOLDER
    loader = FileSystemLoader([project, ROOT / "templates"])
    files = environment.overlay(loader=loader, keep_trailing_newline=True)
    sums = {}
    for path in [*project.glob("src/*/repro/**/*"), *project.glob("environment/**/*")]:
        source = path.relative_to(project).as_posix()
        name = source.replace("{{cookiecutter.__package}}", answers["__package"])
        if path.is_file() and (folder / name).is_file():
            content = path.read_bytes()
            if not _is_copied(source):
                content = (
                    loader.load(files, source, files.globals).render(cookiecutter=answers).encode()
                )
            sums[name] = hashlib.sha256(content).hexdigest()
    return sums


def _is_copied(name):
    return any(fnmatch.fnmatch(name, pattern) for pattern in _settings()["_copy_without_render"])


def _name_errors():
    """Have an error that ends the process say what it is in one line."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _crash


def _all_or_nothing(folder):
    """Take a new folder away again, should the process end before all is in it.

    SIGKILL gives no chance to: what it leaves has no `environment.mk`, so no verb works in it, and
    `--overwrite-if-exists` makes it whole.
    """
    if folder.exists() or threading.current_thread() is not threading.main_thread():
        return
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is default:
            signal.signal(number, _stop)
    atexit.register(_clean, folder)


def _stop(number, _frame):
    _broken_off.append(number)
    raise KeyboardInterrupt


def _crash(kind, error, trace):
    _broken_off.append(kind)
    if issubclass(kind, shutil.Error):  # of a whole folder: each file with its reason
        _, target, why = error.args[0][0]
        print(f"error: {re.sub(r'^.Errno [0-9]+. |: .*', '', str(why))}: {target}", file=sys.stderr)
    elif issubclass(kind, OSError):
        reason = f"{error.strerror}: {error.filename}" if error.strerror else str(error)
        print(f"error: {reason}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _clean(folder):
    for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C would leave the rest
        signal.signal(number, signal.SIG_IGN)
    # The hook puts `environment.mk` there, and takes `_overlays` away last of all.
    whole = (folder / "environment.mk").exists() and not (folder / "_overlays").exists()
    if _broken_off and not whole:
        for made in [folder, *folder.rglob("*")]:
            if made.is_dir() and not made.is_symlink():
                made.chmod(0o700)  # copied from a read-only template, perhaps
        shutil.rmtree(folder, ignore_errors=True)
