"""A network drawn as its U, from the built module, as SVG.

Height is resolution, the finest on top; left is the encoder, right the decoder::

    image > [64]--------skip-------->[64] > maps
               [128]------------->[128]
                    [256] ----->
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_tiled_unet.networks.wiring import Node, Source, Wire
    from napari_tiled_unet.networks.zoo import Network

_INDENT, _ROW, _HEIGHT, _MARGIN, _TOP = 62, 86, 34, 84, 74
_COLOURS = {
    "down": "#b5452c",
    "up": "#2f7d4f",
    "skip": "#6b7280",
    "gate": "#d97706",
    "box": "#dbeafe",
    "ink": "#1f2937",
}


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    channels: int

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + _HEIGHT / 2


def diagram_svg(network: Network) -> str:
    """Return the drawing of a network: levels, channels, skips, gates.

    Parameters
    ----------
    network : Network
        Any row; nothing is run.
    """
    decoder, depth = network.decoder, len(network.encoder.factors)
    boxes: dict[Source, _Box] = {
        level: _box(level * _INDENT, level, channels) for level, channels in enumerate(network.encoder.channels)
    }
    nodes = list(decoder.needed(decoder.outputs[:1]))
    nested = max(node.column for node in nodes) > 2
    # A node at the bottleneck's level would lie on it.
    pushed = 2 * _INDENT if any(node.level == depth for node in nodes) else 0
    for node in nodes:
        place = node.level + 2 * node.column if nested else 2 * depth - node.level + 2 * (node.column - 1)
        boxes[node.name] = _box(place * _INDENT + pushed, node.level, node.channels)
    lines = [_line(boxes[level], boxes[level + 1], "down") for level in range(depth)]
    for node in nodes:
        for wire in node.wires:
            lines += _wire(network, node, wire, boxes)
    width = max(box.right for box in boxes.values()) + _MARGIN + 40
    height = _TOP + depth * _ROW + _HEIGHT + 64
    return "\n".join(
        [
            *_head(network, width, height),
            *lines,
            *map(_drawn, boxes.values()),
            *_ends(network, boxes),
            _legend(network, height),
            "</svg>",
        ]
    )


def _box(x: float, level: int, channels: int) -> _Box:
    return _Box(_MARGIN + x, _TOP + level * _ROW, 30 + 3 * math.log2(max(channels, 2)), channels)


def _head(network: Network, width: float, height: float) -> list[str]:
    spec = network.spec
    title = f"{spec.architecture}, {spec.ndim}D" + (f", on {spec.encoder}" if spec.encoder != "unet" else "")
    heads = [
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{_COLOURS[kind]}"/></marker>'
        for kind in ("down", "up", "skip")
    ]
    ratios = []
    for level, stride in enumerate(network.encoder.strides):
        text = (
            "1" if max(stride) == 1 else "1/" + ("x".join(map(str, stride)) if len(set(stride)) > 1 else str(stride[0]))
        )
        ratios.append(
            f'<text x="14" y="{_TOP + level * _ROW + _HEIGHT / 2 + 4}" fill="{_COLOURS["skip"]}">{text}</text>'
        )
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><defs>{"".join(heads)}</defs>',
        f'<text x="14" y="26" font-size="16" fill="{_COLOURS["ink"]}">{escape(title)}</text>',
        f'<text x="14" y="48" fill="{_COLOURS["skip"]}">resolution</text>',
        *ratios,
    ]


def _drawn(box: _Box) -> str:
    x, y = box.middle
    return (
        f'<rect x="{box.x:.1f}" y="{box.y}" width="{box.width:.1f}" height="{_HEIGHT}" rx="4" fill="{_COLOURS["box"]}" '
        f'stroke="{_COLOURS["ink"]}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="{_COLOURS["ink"]}">{box.channels}</text>'
    )


def _line(start: _Box, end: _Box, kind: str, bend: float = 0.0) -> str:
    if kind == "skip" and start.y == end.y:
        x0, y0, x1, y1 = start.right, start.middle[1], end.x, end.middle[1]
        if bend:
            x0, x1, y0, y1 = start.middle[0], end.middle[0], start.y, end.y
    elif start.y < end.y:
        x0, y0, x1, y1 = start.middle[0], start.y + _HEIGHT, end.middle[0], end.y
    else:
        x0, y0, x1, y1 = start.middle[0], start.y, end.middle[0], end.y + _HEIGHT
    # What comes up over several levels goes round the boxes between.
    aside = 34.0 * (round((start.y - end.y) / _ROW) - 1) if start.y > end.y else 0.0
    path = f"M{x0:.1f} {y0:.1f} Q{(x0 + x1) / 2 + aside:.1f} {(y0 + y1) / 2 + aside / 2 - bend:.1f} {x1:.1f} {y1:.1f}"
    return (
        f'<path class="{kind}" d="{path}" fill="none" stroke="{_COLOURS[kind]}" stroke-width="1.6" '
        f'marker-end="url(#{kind})"/>'
    )


def _wire(network: Network, node: Node, wire: Wire, boxes: dict[Source, _Box]) -> list[str]:
    start, end = boxes[wire.source], boxes[node.name]
    kind = "up" if network.decoder.rises(node, wire) else "skip"
    # A skip past other boxes of its level goes over them.
    between = sum(box.y == start.y and start.x < box.x < end.x for box in boxes.values())
    drawn = [_line(start, end, kind, bend=26.0 + 14 * between if kind == "skip" and between else 0.0)]
    if wire.gate is not None:
        x, y, colour = end.x - 20, end.middle[1], _COLOURS["gate"]
        drawn.append(
            f'<g class="gate"><circle cx="{x:.1f}" cy="{y}" r="9" fill="white" stroke="{colour}" stroke-width="1.6"/>'
            f'<text x="{x:.1f}" y="{y + 4}" text-anchor="middle" fill="{colour}">&#215;</text></g>'
        )
    elif kind == "skip" and node.join == "add":
        drawn.append(
            f'<text class="add" x="{end.x - 14:.1f}" y="{end.middle[1] - 5}" fill="{_COLOURS["ink"]}">+</text>'
        )
    return drawn


def _ends(network: Network, boxes: dict[Source, _Box]) -> list[str]:
    first, last = boxes[0], boxes[network.decoder.outputs[0]]
    y, maps = first.middle[1], network.spec.out_channels
    return [
        f'<text x="{first.x - 8}" y="{y + 4}" text-anchor="end" fill="{_COLOURS["ink"]}">image</text>',
        f'<text x="{last.right + 8}" y="{y + 4}" fill="{_COLOURS["ink"]}">{maps} map{"s" if maps > 1 else ""}</text>',
    ]


def _legend(network: Network, height: float) -> str:
    spec = network.spec
    ways = spec.downsample if spec.encoder == "unet" else "stride of the encoder"
    words = [("down", ways), ("up", "up"), ("skip", "skip")]
    if any(w.gate for node in network.decoder.nodes.values() for w in node.wires):
        words.append(("gate", "attention gate"))
    x, parts = 14.0, []
    for kind, word in words:
        parts.append(f'<text x="{x}" y="{height - 16:.0f}" fill="{_COLOURS[kind]}">&#9632; {escape(word)}</text>')
        x += 34 + 7 * len(word)
    parts.append(f'<text x="{x}" y="{height - 16:.0f}" fill="{_COLOURS["ink"]}">numbers are channels</text>')
    return "".join(parts)
