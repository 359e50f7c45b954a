"""One pictogram, many drawings: position, colours, outlines, backgrounds. Whole batches, in torch."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = 64  # pixels of a training image
GREY = (0.299, 0.587, 0.114)


def augment(pictures: Tensor, mono: Tensor, random: torch.Generator, strength: float) -> Tensor:
    """Training images of a batch.

    With all of it from the start nothing is learnt for hundreds of steps (README), so ``strength`` (0 to 1, a factor
    on every probability and range) grows during training.

    Args:
        pictures: uint8 (B, 72, 72, 4), straight alpha.
        mono: bool (B,), those that are one black ink.

    Returns:
        float (B, 3, 64, 64) in [0, 1].
    """
    layer = pictures.permute(0, 3, 1, 2).float() / 255
    premultiplied = torch.cat([layer[:, :3] * layer[:, 3:], layer[:, 3:]], 1)
    placed = _place(premultiplied, random, strength)
    alpha = placed[:, 3:]
    colour = placed[:, :3] / alpha.clamp(min=1e-3)
    colour = _ink(colour, mono, random, strength)
    colour, alpha = _outline(colour, alpha, random, strength)
    colour = _tint(colour, random, strength)
    image = colour * alpha + _background(len(layer), random, strength) * (1 - alpha)
    image = _line_art(image, random, strength)
    image = _degrade(image, random, strength)
    return image.clamp(0, 1)


def _uniform(shape: tuple[int, ...], low: float, high: float, random: torch.Generator) -> Tensor:
    return torch.empty(shape, device=random.device).uniform_(low, high, generator=random)


def _rand(*shape: int, random: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=random, device=random.device)


def _chosen(count: int, probability: float, random: torch.Generator) -> Tensor:
    return (_rand(count, random=random) < probability).nonzero().squeeze(1)


def _grey(image: Tensor) -> Tensor:
    return (image * torch.tensor(GREY, device=image.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _place(layer: Tensor, random: torch.Generator, strength: float) -> Tensor:
    count = len(layer)
    angle = torch.randn(count, generator=random, device=random.device) * 12 * strength * math.pi / 180
    scale = 1 + strength * _uniform((count,), -0.15, 0.35, random)
    stretch = 1 + strength * _uniform((count,), -0.12, 0.14, random)
    flip = torch.where(_rand(count, random=random) < 0.5, -1.0, 1.0)
    shift = strength * _uniform((2, count), -0.15, 0.15, random)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [cos * stretch * flip, -sin, shift[0], sin * flip, cos / stretch, shift[1]]
    theta = torch.stack(rows, 1).view(count, 2, 3)
    grid = F.affine_grid(theta, [count, 4, SIZE, SIZE], align_corners=False)
    return F.grid_sample(layer, grid, align_corners=False)


def _ink(colour: Tensor, mono: Tensor, random: torch.Generator, strength: float) -> Tensor:
    ink = _rand(len(colour), 3, 1, 1, random=random) * 0.85
    ink = torch.where(_rand(len(colour), 1, 1, 1, random=random) < strength / 2, ink, 0.0)
    # grey levels of a two-tone icon stay apart from its black
    inked = ink + (1 - ink) * colour
    return torch.where(mono.view(-1, 1, 1, 1), inked, colour)


def _outline(colour: Tensor, alpha: Tensor, random: torch.Generator, strength: float) -> tuple[Tensor, Tensor]:
    colour, alpha = colour.clone(), alpha.clone()
    for width, probability in ((3, 0.2), (5, 0.12)):
        index = _chosen(len(colour), probability * strength, random)
        solid = alpha[index]
        grown = F.max_pool2d(solid, width, 1, width // 2)
        inner = -F.max_pool2d(-solid, 3, 1, 1)
        colour[index] = colour[index] * inner  # black where the shape ends
        alpha[index] = grown
    index = _chosen(len(colour), 0.06 * strength, random)  # silhouettes
    colour[index] = colour[index] * 0 + _rand(len(index), 3, 1, 1, random=random) * 0.3
    return colour, alpha


def _tint(colour: Tensor, random: torch.Generator, strength: float) -> Tensor:
    count = len(colour)
    index = _chosen(count, 0.6 * strength, random)
    gain = _uniform((len(index), 3, 1, 1), 0.7, 1.3, random)
    offset = _uniform((len(index), 1, 1, 1), -0.12, 0.12, random)
    colour = colour.clone()
    colour[index] = (colour[index] * gain + offset).clamp(0, 1)
    index = _chosen(count, 0.15 * strength, random)
    colour[index] = colour[index][:, torch.randperm(3, generator=random, device=random.device)]
    index = _chosen(count, 0.2 * strength, random)
    colour[index] = _grey(colour[index]).expand(-1, 3, -1, -1)
    return colour


def _background(count: int, random: torch.Generator, strength: float) -> Tensor:
    flat = _rand(count, 3, 1, 1, random=random)
    kind = _rand(count, 1, 1, 1, random=random)
    flat = torch.where(kind > 0.45 * strength, 1.0, torch.where(kind < 0.1 * strength, flat * 0.2, flat))
    coarse = _rand(count, 3, 8, 8, random=random) - 0.5
    texture = F.interpolate(coarse, size=SIZE, mode="bilinear") * _uniform((count, 1, 1, 1), 0.1, 0.9, random)
    return torch.where((kind - 0.2 * strength).abs() < 0.06 * strength, flat + texture, flat.expand(-1, -1, SIZE, SIZE))


def _line_art(image: Tensor, random: torch.Generator, strength: float) -> Tensor:
    index = _chosen(len(image), 0.12 * strength, random)
    grey = _grey(image[index])
    edges = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
    image = image.clone()
    image[index] = 1 - (edges * 2).clamp(0, 1).expand(-1, 3, -1, -1)
    index = _chosen(len(image), 0.06 * strength, random)
    image[index] = 1 - image[index]
    return image


def _degrade(image: Tensor, random: torch.Generator, strength: float) -> Tensor:
    index = _chosen(len(image), 0.1 * strength, random)
    if len(index):
        small = F.interpolate(image[index], scale_factor=0.4, mode="area")
        image[index] = F.interpolate(small, size=SIZE, mode="bilinear")
    index = _chosen(len(image), 0.15 * strength, random)
    image[index] += torch.randn(image[index].shape, generator=random, device=random.device) * 0.1
    index = _chosen(len(image), 0.3 * strength, random)
    if len(index):
        top, left = torch.randint(0, SIZE - 20, (2,), generator=random, device=random.device).tolist()
        image[index, :, top : top + 20, left : left + 20] = _rand(len(index), 3, 1, 1, random=random)
    return image
