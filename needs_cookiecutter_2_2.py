"""Makes `template_logic` known to Jinja as its file stands now.

`cruft update` renders two versions of the template in one process, and Python imports a module
once: the new version would be rendered by the old one's functions. This module is the part that
stays in memory, so it does nothing but read the other one anew.

It is named for cookiecutter 1, which cannot load a template's own module and says just its name.
"""

from functools import cache
from pathlib import Path

from jinja2.ext import Extension

LOGIC = Path(__file__).with_name("template_logic.py")


class TemplateLogic(Extension):
    """The extension of `template_logic.py` as it is at this moment."""

    def __init__(self, environment):
        super().__init__(environment)
        _namespace(LOGIC.read_text(encoding="utf-8"))["TemplateLogic"](environment)


@cache
def _namespace(source):
    # Not by the import system: its cache of bytecode tells files of one second and size not apart.
    namespace = {"__name__": LOGIC.stem, "__file__": str(LOGIC)}
    exec(compile(source, str(LOGIC), "exec"), namespace)
    return namespace
