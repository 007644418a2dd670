"""Refuse invalid answers before anything is written, with one line per problem."""

import json
import sys

# The answers arrive as JSON text, never as source.
PROBLEMS = json.loads(r"""{{ problems(cookiecutter) | list | tojson }}""")
WARNINGS = json.loads(r"""{{ warnings(cookiecutter) | list | tojson }}""")

if __name__ == "__main__":
    for stream_text in [*(f"warning: {w}" for w in WARNINGS), *(f"error: {p}" for p in PROBLEMS)]:
        print(stream_text, file=sys.stderr)
    sys.exit(1 if PROBLEMS else 0)
