"""Tables in the README that commands write, between two lines that stay."""


def row(cells: list[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def around(readme: str, begin: str, end: str) -> tuple[str, str]:
    """What stands before and after the table between the lines `begin` and `end`, these included.

    Raises:
        ValueError: one of them is missing.
    """
    head, found_begin, rest = readme.partition(f"{begin}\n")
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"README.md must hold the lines {begin!r} and {end!r}, around the table")
    return head + begin + "\n", end + tail
