"""Plain draws in pure torch: tiles of tokens, their masses, and the tokens that points fall on.

The definition is docs/decisions/0009; src/sparselogits/exp_mass.h has the same arithmetic. Every
step is an elementwise float32 operation that is rounded on its own, or an integer one. Never hand
this file to torch.compile: a fused multiply-add would change draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparselogits.sampling_torch.points import points

__all__ = ["points", "row_cost", "statistics", "tokens"]  # what TileBackend asks for

TILE = 256

FLOOR = -43.5  # differences below it, and NaN, count as this: their mass is 0
ROUNDER = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, half to even
LOG2E = float.fromhex("0x1.715476p+0")
LN2_HIGH = float.fromhex("0x1.62e4p-1")
LN2_LOW = float.fromhex("0x1.7f7d1cp-20")
SCALE = 2.0**30
POLYNOMIAL = tuple(  # highest power first; all exact in float32
    float.fromhex(coefficient) * SCALE
    for coefficient in (
        "0x1.6a4ce4p-10",
        "0x1.123988p-7",
        "0x1.5558b0p-5",
        "0x1.555492p-3",
        "0x1.fffffcp-2",
        "0x1p+0",
    )
)


@dataclass(frozen=True)
class TileGrid:
    """Which tiles of the vocabulary some columns touch.

    Attributes:
        vocab_size: Tokens of the whole vocabulary.
        start: Token id of the first column.
        num_columns: How many columns there are.
    """

    vocab_size: int
    start: int
    num_columns: int

    @property
    def lead(self) -> int:
        """Tokens of the first tile that come before the first column."""
        return self.start % TILE

    @property
    def first_tile(self) -> int:
        return self.start // TILE

    @property
    def num_tiles(self) -> int:
        return -(-(self.lead + self.num_columns) // TILE)

    @property
    def tiles(self) -> range:
        return range(self.first_tile, self.first_tile + self.num_tiles)

    @property
    def base_shift(self) -> int:
        """By how much every tile's mass is shifted, so that a row's masses stay below 2^62."""
        return (-(-self.vocab_size // TILE) - 1).bit_length()


@dataclass(frozen=True)
class TileMasses:
    """Tiles of some rows as integers relative to the row's maximum; all are (rows, tiles) int64.

    A tile's mass is its sum * mantissa >> shift.
    """

    mass: torch.Tensor
    mantissa: torch.Tensor
    shift: torch.Tensor


def fixed_exp(difference: torch.Tensor) -> torch.Tensor:
    """e^difference * 2^30 in float32, for differences of 0 and below, -inf and NaN."""
    bounded = torch.where(difference > FLOOR, difference, FLOOR)
    exponent = (bounded * LOG2E).add_(ROUNDER).sub_(ROUNDER)
    rest = bounded.sub_(exponent * LN2_HIGH).sub_(exponent * LN2_LOW)
    power = torch.full_like(rest, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        power.mul_(rest).add_(coefficient)
    power.mul_(rest).add_(SCALE)
    exponent_bits = exponent.to(torch.int32).mul_(1 << 23)
    return power.view(torch.int32).add_(exponent_bits).view(torch.float32)


def scale(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """logits / temperature in float32."""
    logits = logits.to(torch.float32)
    # A divisor in a tensor: by a Python scalar, CUDA would multiply with the rounded reciprocal.
    return logits / torch.full((1,), temperature, device=logits.device)


def token_masses(scaled: torch.Tensor, tile_max: torch.Tensor) -> torch.Tensor:
    """(..., TILE) int32 masses of tokens, from 0 to 2^30, relative to (...) tile maxima."""
    return fixed_exp(scaled - tile_max.unsqueeze(-1)).add_(0.5).to(torch.int32)


def row_cost(vocab_size: int, rounds: int) -> int:
    """How many temporary values a row takes, give or take a constant factor."""
    return max(vocab_size, rounds)


def statistics(
    logits: torch.Tensor, grid: TileGrid, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximum and sum of the masses of each tile: (rows, tiles) float32 and int64.

    The maxima are those of logits / temperature. One is NaN where a logit of the tile is.
    """
    scaled = _tiles(logits, grid, temperature)
    tile_max = scaled.amax(2)
    return tile_max, token_masses(scaled, tile_max).sum(2, dtype=torch.int64)


def sums(
    logits: torch.Tensor, grid: TileGrid, temperature: float, tile_max: torch.Tensor
) -> torch.Tensor:
    """(rows, tiles) int64 sums of masses where the columns hold parts of tiles.

    `tile_max` is (rows, tiles) float32, of the whole tiles.
    """
    masses = token_masses(_tiles(logits, grid, temperature), tile_max)
    return masses.sum(2, dtype=torch.int64)


def weigh(
    tile_max: torch.Tensor, tile_sum: torch.Tensor, row_max: torch.Tensor, base_shift: int
) -> TileMasses:
    """Puts tiles that are relative to their own maximum in relation to each other.

    Args:
        tile_max: (rows, tiles) float32.
        tile_sum: (rows, tiles) int64.
        row_max: (rows, 1) float32, of the whole vocabulary.
        base_shift: Of the `TileGrid`.
    """
    bits = fixed_exp(tile_max - row_max).view(torch.int32).to(torch.int64)
    mantissa = (bits & 0x7FFFFF) | 0x800000
    # sum * mantissa is below 2^62: from there on, every shift leaves 0.
    shift = (base_shift + 157 - (bits >> 23)).clamp_(max=62)
    return TileMasses((tile_sum * mantissa) >> shift, mantissa, shift)


def locate(points: torch.Tensor, tiles: TileMasses) -> tuple[torch.Tensor, torch.Tensor]:
    """The tile that each point falls into, and where in the tile's own masses it does.

    Args:
        points: (rows, rounds) int64, relative to the start of the first tile. One that lies in none
            of the tiles gives a tile that exists, with no meaning.
        tiles: The masses to look in.
    """
    ends = tiles.mass.cumsum(1)
    tile = torch.searchsorted(ends, points, right=True).clamp_(max=ends.shape[1] - 1)
    offset = points - (ends - tiles.mass).gather(1, tile)
    return tile, (offset << tiles.shift.gather(1, tile)) // tiles.mantissa.gather(1, tile)


def tokens(
    logits: torch.Tensor,
    grid: TileGrid,
    temperature: float,
    tile_max: torch.Tensor,
    tile: torch.Tensor,
    offset: torch.Tensor,
) -> torch.Tensor:
    """(rows, rounds) int64: the columns whose mass covers `offset` in the masses of `tile`.

    Args:
        logits: (rows, columns).
        grid: Where the columns lie.
        temperature: Divides the logits.
        tile_max: (rows, tiles) float32, of whole tiles, also where the columns hold a part of one.
        tile: (rows, rounds) int64, from 0 to tiles - 1.
        offset: (rows, rounds) int64. One outside the masses gives a column with no meaning.
    """
    if tile.shape[1] < grid.num_tiles:
        found = _in_hit_tiles(logits, grid, temperature, tile_max, tile, offset)
    else:
        found = _in_whole_rows(logits, grid, temperature, tile_max, tile, offset)
    return found.clamp_(0, grid.num_columns - 1)


def _tiles(logits: torch.Tensor, grid: TileGrid, temperature: float) -> torch.Tensor:
    """(rows, tiles, TILE) float32 scaled logits, filled up with -inf."""
    tail = grid.num_tiles * TILE - grid.lead - grid.num_columns
    padding = (grid.lead, tail)
    padded = torch.nn.functional.pad(scale(logits, temperature), padding, value=float("-inf"))
    return padded.view(len(logits), grid.num_tiles, TILE)


def _in_hit_tiles(
    logits: torch.Tensor,
    grid: TileGrid,
    temperature: float,
    tile_max: torch.Tensor,
    tile: torch.Tensor,
    offset: torch.Tensor,
) -> torch.Tensor:
    rows, rounds = tile.shape
    first = tile * TILE - grid.lead
    columns = first.unsqueeze(2) + torch.arange(TILE, device=tile.device)
    inside = columns.clamp(0, grid.num_columns - 1)
    values = logits.gather(1, inside.view(rows, -1)).view(rows, rounds, TILE)
    scaled = scale(values, temperature).masked_fill_(columns != inside, float("-inf"))
    masses = token_masses(scaled, tile_max.gather(1, tile))
    return first + (masses.cumsum(2, dtype=torch.int64) <= offset.unsqueeze(2)).sum(2)


def _in_whole_rows(
    logits: torch.Tensor,
    grid: TileGrid,
    temperature: float,
    tile_max: torch.Tensor,
    tile: torch.Tensor,
    offset: torch.Tensor,
) -> torch.Tensor:
    masses = token_masses(_tiles(logits, grid, temperature), tile_max)
    ends = masses.view(len(logits), -1).cumsum(1, dtype=torch.int64)
    starts = ends[:, TILE - 1 :: TILE] - masses.sum(2, dtype=torch.int64)
    return torch.searchsorted(ends, starts.gather(1, tile) + offset, right=True) - grid.lead
