"""Remove users, passwords and tokens from addresses before anything is shown."""

import re

_USER = re.compile(r"(?<=://)[^/?#\s@'\"]+@")
_NAMES = "token|key|secret|password|signature|sig|auth"
_PARAMETER = re.compile(rf"(?i)([?&;][\w.-]*(?:{_NAMES})=)[^&#\s'\"]+")


def without_secrets(text: str) -> str:
    """`https://user:password@host/p?token=x` as `https://host/p?token=***`, anywhere in a text."""
    return _PARAMETER.sub(r"\1***", _USER.sub("", text))
