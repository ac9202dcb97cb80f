"""Where matrix products of the screen are computed: numpy, or torch on any device.

The bounds of ``conspec.encodings.rounding`` hold for both, in float64 and float32, so a verdict
does not depend on the device being right about more than IEEE arithmetic.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from conspec.encodings.rounding import Floats, full_precision, row_bounds
from conspec.specs.errors import BadUsage

Tensor = Any  # torch.Tensor; torch is imported when first used


@dataclass(frozen=True, slots=True)
class Device:
    """A torch device and a precision.

    Attributes:
        name: as torch has it: "cpu", "cuda", "cuda:1", "mps".
        single: float32 instead of float64. Bounds are wider then, and as rigorous.
    """

    name: str
    single: bool = False

    def __post_init__(self) -> None:
        """Refuse a device that is not there.

        Raises:
            BadUsage: torch knows no such device, or cannot compute on it.
        """
        import torch

        try:
            torch.zeros(1, device=self.name, dtype=self.dtype)
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadUsage(
                f"device {self.name!r} cannot be used: {reason}; `cpu` works everywhere"
            ) from error

    @property
    def dtype(self) -> Any:
        """The torch dtype."""
        import torch

        return torch.float32 if self.single else torch.float64

    def tensor(self, values: Floats) -> Tensor:
        """The values on the device, rounded to nearest."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(values)).to(self.name, self.dtype)

    def row_bounds(
        self,
        rows: Floats,
        constants: Floats,
        errors: tuple[Floats, Floats],
        lower: Floats,
        upper: Floats,
    ) -> tuple[Floats, Floats]:
        """``rounding.row_bounds`` on the device; rounding to float32 is part of the errors."""
        kept_rows, row_errors = self._rounded(rows, errors[0])
        kept_constants, constant_errors = self._rounded(constants, errors[1])
        low, high = self._outward(lower, -np.inf), self._outward(upper, np.inf)
        with full_precision():
            found = row_bounds(kept_rows, kept_constants, (row_errors, constant_errors), low, high)
        return found[0].cpu().double().numpy(), found[1].cpu().double().numpy()

    def _rounded(self, values: Floats, errors: Floats) -> tuple[Tensor, Tensor]:
        """Values on the device, and bounds of their distance from what they stand for."""
        kept = self.tensor(values)
        if not self.single:
            return kept, self.tensor(errors)
        lost = np.abs(kept.cpu().double().numpy() - values)  # exact: both are near each other
        with np.errstate(invalid="ignore"):
            total = np.nextafter(lost + errors, np.inf)
        return kept, self._outward(np.where(np.isnan(total), np.inf, total), np.inf)

    def _outward(self, values: Floats, side: float) -> Tensor:
        """Values on the device, rounded towards ``side``."""
        import torch

        kept = self.tensor(values)
        if not self.single:
            return kept
        moved = torch.nextafter(kept, torch.full_like(kept, side))
        short = kept.cpu().double().numpy()
        wrong = short < values if side > 0 else short > values
        return torch.where(torch.from_numpy(wrong).to(self.name), moved, kept)
