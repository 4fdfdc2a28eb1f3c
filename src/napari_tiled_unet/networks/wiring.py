"""A decoder as a drawing: nodes, and the wires that lead to them.

Every decoder of the family is such a drawing, so running it, its receptive field and its
diagram are written once::

    level 0   e0 ---skip---> (0) ---> head        a node: wires joined, then a block
                              ^ up                a wire: where from, and the path that
    level 1   e1 ---skip---> (1)                  brings it to the node's resolution
                              ^ up
    level 2   e2 -------------+
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_tiled_unet.networks.attention import AttentionGate
from napari_tiled_unet.networks.blocks import Piece, Span

Source = int | str
"""A level of the encoder, or the name of a node."""


@dataclass(frozen=True)
class Wire:
    """What leads to a node.

    Attributes
    ----------
    source : int or str
        Level of the encoder, or name of an earlier node.
    path : Piece or None
        Brings it to the resolution and channels that the node needs.
    gate : AttentionGate or None
        Weighs what the path gives.
    steered_by : int or str
        What steers the gate; "up" is what comes up to the same node.
    """

    source: Source
    path: Piece | None = None
    gate: AttentionGate | None = None
    steered_by: Source = ""


@dataclass(frozen=True)
class Node:
    """Wires joined at one level, then a block.

    Attributes
    ----------
    name : str
        Unique; also names its weights in a model file.
    level : int
        0 is the finest.
    channels : int
        That it gives.
    wires : tuple of Wire
        In the order of concatenation.
    block : Piece or None
        Applied to what was joined.
    join : {"concatenate", "add"}
        How.
    column : int
        Place in the diagram, from left to right.
    """

    name: str
    level: int
    channels: int
    wires: tuple[Wire, ...]
    block: Piece | None = None
    join: Literal["concatenate", "add"] = "concatenate"
    column: int = 1


def join_wires(brought: list[Tensor], join: str, block: Piece | None) -> Tensor | tuple[Tensor, ...]:
    """Return what wires brought as one; side by side where the block that follows takes it so, which saves a copy."""
    if join == "add":
        return sum(brought[1:], brought[0])
    if len(brought) == 1:
        return brought[0]
    return tuple(brought) if block is not None and block.takes_parts else torch.cat(brought, dim=1)


class Decoder(nn.Module):
    """The nodes of a decoder, run in their order.

    Parameters
    ----------
    nodes : sequence of Node
        Each after those that it is wired to.
    outputs : sequence of str
        The node whose features are the answer, then those of deep supervision.
    scores : bool
        Whether the answer already has a channel per map and needs no head.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[str], *, scores: bool = False) -> None:
        super().__init__()
        self.nodes = {node.name: node for node in nodes}
        self.outputs, self.scores = tuple(outputs), scores
        self.ups, self.skips, self.gates, self.blocks = (nn.ModuleDict() for _ in range(4))
        for node in nodes:
            if node.block is not None:
                self.blocks[node.name] = node.block
            rising = [w for w in node.wires if self.rises(node, w)]
            for group, wires in ((self.ups, rising), (self.skips, [w for w in node.wires if w not in rising])):
                for wire in wires:
                    key = node.name if len(wires) == 1 else f"{node.name}_from_{wire.source}"
                    if wire.path is not None:
                        group[key] = wire.path
                    if wire.gate is not None:
                        self.gates[key] = wire.gate

    def level_of(self, source: Source) -> int:
        """Return the level of an encoder's features or of a node."""
        return source if isinstance(source, int) else self.nodes[source].level

    def rises(self, node: Node, wire: Wire) -> bool:
        """Return whether a wire comes up from a coarser level."""
        return self.level_of(wire.source) > node.level

    @property
    def channels(self) -> int:
        """Channels of the answer."""
        return self.nodes[self.outputs[0]].channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the finest features, ``(n, channels, *image)``."""
        return self.run(features, self.outputs[:1])[0]

    def run(
        self, features: list[Tensor], outputs: Sequence[str], seen: dict[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Return the features of some nodes.

        Parameters
        ----------
        features : list of torch.Tensor
            Of the encoder, finest first.
        outputs : sequence of str
            Names of nodes.
        seen : dict, optional
            Filled with what the nodes give ("node NAME"), what their wires bring ("wire NAME
            SOURCE") and what gates weigh ("gate NAME").
        """
        values: dict[Source, Tensor] = dict(enumerate(features))
        needed = list(self.needed(outputs))
        last_use = {source: node.name for node in needed for source in _read(node)}
        for node in needed:
            values[node.name] = x = self._join(node, values, seen)
            if seen is not None:
                seen[f"node {node.name}"] = x
            # What no later node reads is let go, or large tiles would not fit.
            for source in _read(node):
                if last_use[source] == node.name and source not in outputs:
                    values.pop(source, None)
        return [values[name] for name in outputs]

    def _join(self, node: Node, values: dict[Source, Tensor], seen: dict[str, Tensor] | None) -> Tensor:
        if node.join == "add" and seen is None:
            # One after the other, so that they are not all held at once.
            x = self._brought(node.wires[0], values)
            for wire in node.wires[1:]:
                x = x + self._brought(wire, values)
            return x if node.block is None else node.block(x)
        brought = [self._brought(wire, values) for wire in node.wires]
        for i, wire in enumerate(node.wires):
            if wire.gate is not None:
                weights = wire.gate(brought[i], brought[-1] if wire.steered_by == "up" else values[wire.steered_by])
                brought[i] = brought[i] * weights
                if seen is not None:
                    seen[f"gate {node.name}"] = weights
        if seen is not None:
            seen.update({f"wire {node.name} {w.source}": x for w, x in zip(node.wires, brought, strict=True)})
        joint: Any = join_wires(brought, node.join, node.block)
        del brought
        return joint if node.block is None else node.block(joint)  # type: ignore[no-any-return]

    @staticmethod
    def _brought(wire: Wire, values: dict[Source, Tensor]) -> Tensor:
        x = values[wire.source]
        return x if wire.path is None else wire.path(x)

    def needed(self, outputs: Sequence[str]) -> Iterator[Node]:
        """Yield the nodes that some outputs are made of, in their order."""
        wanted: set[Source] = set(outputs)
        for node in reversed(self.nodes.values()):
            if node.name in wanted:
                wanted.update(_read(node))
        return (node for node in self.nodes.values() if node.name in wanted)

    def sources(self, span: Span, axis: int) -> dict[int, Span]:
        """Return, per level of the encoder, the indices that the answer in ``span`` depends on."""
        needs: dict[Source, Span] = {self.outputs[0]: span}

        def need(source: Source, span: Span) -> None:
            known = needs.get(source, span)
            needs[source] = min(known[0], span[0]), max(known[1], span[1])

        for node in reversed(self.nodes.values()):
            if node.name not in needs:
                continue
            inner = needs[node.name]
            inner = inner if node.block is None else node.block.sources(inner, axis)
            for wire in node.wires:
                brought = inner
                if wire.gate is not None:
                    brought, steering = wire.gate.sources(inner, axis)
                    up = node.wires[-1]
                    if wire.steered_by != "up":
                        need(wire.steered_by, steering)
                    elif up.path is not None:
                        need(up.source, up.path.sources(steering, axis))
                need(wire.source, brought if wire.path is None else wire.path.sources(brought, axis))
        return {source: span for source, span in needs.items() if isinstance(source, int)}


def _read(node: Node) -> list[Source]:
    return [*(w.source for w in node.wires), *(w.steered_by for w in node.wires if w.steered_by not in ("", "up"))]
