"""What the commands of ``conspec rules`` share: a bundle as rules see it, and their options."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conspec.cli.inputs import open_lens
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.analysis.names import Name
    from conspec.analysis.pathways import Array, LastLayer
    from conspec.analysis.rule_files import Saved
    from conspec.analysis.rules import Settings
    from conspec.lens.bundle import Lens

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write the results to DIR, too.")
]
RulesOption = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="Rules by 'extract'; learnt anew if not given."),
]


@dataclass(frozen=True, eq=False)
class Basis:
    """A bundle as the rules see it.

    Attributes:
        lens: the bundle.
        layer: its last layer.
        z: what goes into that, for each stored image [N, d].
    """

    lens: "Lens"
    layer: "LastLayer"
    z: "Array"

    def learn(self, settings: "Settings") -> "Saved":
        """Rules from the bundle's training images."""
        from conspec.analysis.rule_files import Saved
        from conspec.analysis.rules import learn

        data = self.lens.embeddings
        train = ~data.heldout
        images = (self.z[train], data.predicted[train], data.label[train])
        rules = learn(self.lens.classes, self.layer, images, settings)
        return Saved(rules, self.lens.hash, self.hidden)

    @property
    def hidden(self) -> bool:
        """Whether the head has a hidden layer, so that rules are about that."""
        from conspec.encodings.query import space_of

        return not space_of(self.lens).head.is_affine

    def read(self, path: Path) -> "Saved":
        """Rules from a file.

        Raises:
            BadUsage: they were learnt from another bundle.
        """
        from conspec.analysis.rule_files import load

        saved = load(path)
        if saved.bundle != self.lens.hash:
            raise BadUsage(
                f"{path}: these rules were learnt from another bundle ({saved.bundle[:12]}…) than "
                f"{self.lens.root} ({self.lens.hash[:12]}…); extract them from this one"
            )
        return saved

    def rules(self, path: Path | None) -> "Saved":
        """Rules from a file, or learnt with the usual settings if there is none.

        Raises:
            BadUsage: they were learnt from another bundle.
        """
        from conspec.analysis.rules import Settings

        return self.learn(Settings()) if path is None else self.read(path)

    def names(self, saved: "Saved") -> "list[Name | None] | None":
        """Concept names of the predicates; None if they are about a hidden layer."""
        from conspec.analysis.names import evidence

        if saved.hidden:
            return None
        words = saved.rules.vocabulary
        train = ~self.lens.embeddings.heldout
        return evidence(self.lens, words, words.active(self.z), train).names()

    def heldout(self) -> "tuple[Array, Array, Array]":
        """Features, predictions and classes of the held-out images.

        Raises:
            BadUsage: there are none.
        """
        data = self.lens.embeddings
        if not data.heldout.any():
            raise BadUsage(f"{self.lens.root}: has no held-out images to evaluate rules on")
        chosen = data.heldout
        return self.z[chosen], data.predicted[chosen], data.label[chosen]


def basis_of(path: Path) -> Basis:
    """The bundle that ``--lens`` names.

    Raises:
        BadFile: it is none.
    """
    from conspec.analysis.pathways import last_layer

    lens = open_lens(path)
    return Basis(lens, *last_layer(lens))
