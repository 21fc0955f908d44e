"""Patient groups for files that name no patient, from a pattern over their titles."""

from __future__ import annotations

import re
from collections.abc import Mapping

DEFAULT_PATTERN = r"([A-Za-z]+[-_ ]?\d+).*"
_LONGEST = 200


def groups_by_pattern(titles: Mapping[str, str], pattern: str) -> dict[str, str]:
    """The group of each title that the pattern matches from its start.

    Args:
        titles: Title by series id.
        pattern: A regular expression; what stands in its first brackets is the group, without brackets all of it.

    Raises:
        ValueError: It is no regular expression; says so in one line.
    """
    if len(pattern) > _LONGEST:
        raise ValueError("The pattern is too long.")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"This is no pattern: {error.msg}.") from error
    found = {}
    for series_id, title in titles.items():
        match = compiled.match(title[:_LONGEST])
        if match is not None:
            group = match.group(1) if compiled.groups and match.group(1) else match.group(0)
            if group.strip():
                found[series_id] = group.strip()
    return found
