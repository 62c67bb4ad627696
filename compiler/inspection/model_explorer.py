"""A graph as JSON for Model Explorer, Google's viewer of large models.

Source: the data classes in `model_explorer/graph_builder.py` of the package ai-edge-model-explorer; the JSON loader of
its web page takes a collection, an object with `label` and `graphs`.
"""

from __future__ import annotations

from neuc.compiler.inspection.graph import Graph, Node

_NOTHING = {"", "."}


def to_model_explorer(graph: Graph, label: str) -> dict[str, object]:
    """A graph collection with this one graph.

    Nodes lie in nested layers, which the viewer folds: the segment, then the path in the name of the ONNX node
    (`/encoder/layer.0/query/MatMul` lies in `encoder/layer.0/query`).
    """
    nodes = [_node(node) for node in graph.nodes]
    return {"label": label, "graphs": [{"id": label, "nodes": nodes}]}


def namespace(node: Node) -> str:
    """The layers a node lies in, outermost first, with `/` between them."""
    path = node.name.split("/")[:-1]
    return "/".join(part for part in (*(s.replace("/", "_") for s in node.scope), *path) if part not in _NOTHING)


def _node(node: Node) -> dict[str, object]:
    # Names are attributes, too: a label is what nodes of a kind have in common.
    attributes = {"ONNX nodes": "\n".join(node.names), **node.attributes} if node.names else dict(node.attributes)
    return {
        "id": node.id,
        "label": node.op,
        "namespace": namespace(node),
        "attrs": [{"key": key, "value": value} for key, value in attributes.items()],
        "incomingEdges": [
            {
                "sourceNodeId": source.node,
                "sourceNodeOutputId": str(source.output),
                "targetNodeInputId": str(index),
            }
            for index, source in enumerate(node.inputs)
        ],
        "outputsMetadata": [
            {"id": str(index), "attrs": [{"key": "type", "value": text}]} for index, text in enumerate(node.outputs)
        ],
    }
