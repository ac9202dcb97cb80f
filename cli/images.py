"""Finding a stored image by what a user calls it."""

from typing import TYPE_CHECKING

from conspec.specs.errors import BadUsage, UnknownName

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens


def stored_image(lens: "Lens", name: str) -> int:
    """The image of a bundle that a name, a number or a part of a name means.

    Raises:
        UnknownName: there is none.
        BadUsage: there are several.
    """
    names = lens.image_ids
    found = [place for place, known in enumerate(names) if known == name]
    if not found and name.isdecimal():
        if int(name) >= lens.count:
            raise UnknownName(f"no image {name}: the bundle has 0 to {lens.count - 1}")
        return int(name)
    found = found or [place for place, known in enumerate(names) if name in known]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownName(
            f"no image is called {name!r}; 'conspec lens show BUNDLE --images' lists them"
        )
    some = ", ".join(f"{names[place]} ({place})" for place in found[:4])
    raise BadUsage(f"{name!r} is in the names of {len(found)} images: {some}, …; give a number")
