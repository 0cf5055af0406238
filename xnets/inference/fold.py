"""Fewer nodes that compute the same: norms go into the layers before them, ReLU and sums into what they read."""

from xnets.inference.graph import Network, Node, mapped
from xnets.inference.weights import why_dense

MAKERS = ("conv", "linear")


def fold(network: Network) -> None:
    """Change `network` in place."""
    network.link()
    for node in list(network.nodes):
        if node.kind == "norm" and _only_for(node.inputs[0], node) and node.inputs[0].kind in MAKERS:
            maker = node.inputs[0]
            if not maker.relu and not maker.pooled and len(maker.inputs) == 1:
                maker.weights.fold(node.scale, node.shift)
                maker.relu = node.relu
                _replace(network, node, maker)
        elif node.kind == "relu" and _only_for(node.inputs[0], node):
            maker = node.inputs[0]
            if maker.kind in (*MAKERS, "norm", "add"):
                maker.relu = True
                _replace(network, node, maker)
        elif node.kind == "add":
            earlier, later = sorted(node.inputs, key=network.nodes.index)
            plain = later.kind == "conv" and not later.relu and not later.pooled and len(later.inputs) == 1
            if plain and _only_for(later, node):
                later.inputs.append(earlier)  # from now on it is added to the convolution's result
                _replace(network, node, later)
        elif node.kind == "pool" and _only_for(node.inputs[0], node) and _pools(node.inputs[0], node):
            maker = node.inputs[0]
            maker.pooled, maker.shape = True, node.shape
            _replace(network, node, maker)


def _pools(maker: Node, pool: Node) -> bool:
    """Whether a convolution's kernel can take the maxima: they are of pixels it has in registers."""
    if maker.kind != "conv" or maker.pooled or len(maker.inputs) > 1 or pool.pooling != (True, 2, 2, 0):
        return False
    w = maker.weights
    even = all(size % 2 == 0 for size in maker.shape[1:])
    return even and w.window == (3, 3) and w.stride == (1, 1) and not why_dense(w)


def _only_for(node: Node, user: Node) -> bool:
    return node.users == [user]


def _replace(network: Network, old: Node, new: Node) -> None:
    """`new` computes what `old` did."""
    network.nodes.remove(old)

    def swapped(node: Node) -> Node:
        return new if node is old else node

    for node in network.nodes:
        node.inputs = [swapped(i) for i in node.inputs]
        if node.call is not None:
            node.call.args, node.call.kwargs = mapped(node.call.args, swapped), mapped(node.call.kwargs, swapped)
    network.result = mapped(network.result, swapped)
    network.link()
