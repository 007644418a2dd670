"""Makes the functions of `template_*.py` known to Jinja, as those files stand now.

`cruft update` renders two versions of the template in one process, and Python imports a module
once: the new version would be rendered by the old one's functions. This module is the part that
stays in memory, so it does nothing but read the others anew. It must never change.

It is named for cookiecutter 1, which cannot load a template's own module and says just its name.
"""

from functools import cache
from pathlib import Path

from jinja2.ext import Extension

HERE = Path(__file__).resolve().parent


class TemplateLogic(Extension):
    """What `template_*.py` install in the environment, at this moment."""

    def __init__(self, environment):
        super().__init__(environment)
        for path in sorted(HERE.glob("template_*.py")):
            namespace = _namespace(path, path.read_text(encoding="utf-8"))
            namespace["install"](environment)


@cache
def _namespace(path, source):
    # Not by the import system: its cache of bytecode tells files of one second and size not apart.
    namespace = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(source, str(path), "exec"), namespace)
    return namespace
