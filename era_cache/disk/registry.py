"""Things that go by a name: our own, and those that other installed packages bring.

In: the name of an entry point group, and what is our own. Out: names, and what a name stands for.
Nothing is imported before its name is asked for.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from era_cache.errors import InputError

__all__ = ["Registry"]


class Registry(NamedTuple):
    """What goes by a name.

    A package adds to it by an entry point of this group, in its own ``setup.cfg`` or
    ``pyproject.toml``. A name of ours stands for ours, whatever other packages say.
    """

    group: str
    """Entry point group, such as ``era_cache.readers``."""
    thing: str
    """What is registered, for messages, such as ``reader``."""
    own: dict[str, str]
    """Name to ``module:attribute``."""

    def names(self) -> list[str]:
        """All names, in alphabetical order."""
        return sorted({*self.own, *(point.name for point in entry_points(group=self.group))})

    def knows(self, name: str) -> bool:
        """Whether something goes by this name."""
        return name in self.own or bool(entry_points(group=self.group, name=name))

    def load(self, name: str) -> Any:
        """Import what goes by a name.

        Raises:
            InputError: nothing does, or the package that brings it is broken.
        """
        if not self.knows(name):
            raise InputError(
                f"No {self.thing} is named '{name}'; there are {', '.join(self.names())}. Install "
                f"the package that brings it (entry point group {self.group})."
            )
        if name in self.own:
            point = EntryPoint(name, self.own[name], self.group)
        else:
            point = next(iter(entry_points(group=self.group, name=name)))
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"The {self.thing} '{name}' ({point.value}) cannot be imported: {error}. Mend or "
                "remove the package that brings it."
            ) from error
