"""What a traced step computes, as a fingerprint: equal for two models only where nothing but their variables differs.

Names say nothing in a graph: TensorFlow and Keras number them as they go. A node is therefore known by its operation,
its attributes and what it takes in, and a graph by its nodes. Variables are known by their place among a model's, and
any other tensor from outside by its value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

ASSIGNMENTS = ("Assign", "ResourceApply", "ResourceScatter", "ResourceSparseApply", "ResourceStridedSliceAssign")
STATEFUL = {
    *("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "VariableShape"),
    *("StatefulPartitionedCall", "If", "While", "Case", "Assert", "PrintV2"),
    *("RngReadAndSkip", "RngSkip", "StatefulStandardNormalV2", "StatefulTruncatedNormal", "StatefulUniform"),
    *("StatefulUniformFullInt", "StatefulUniformInt", "StatefulRandomBinomial"),
    *("CudnnRNN", "CudnnRNNV2", "CudnnRNNV3", "CudnnRNNBackprop", "CudnnRNNBackpropV2", "CudnnRNNBackpropV3"),
}
"""Operations whose state is a variable's, or that have none although TensorFlow counts them among those that have. The
state of any other one (Python's own functions, random numbers that TensorFlow seeds once, tables, iterators) nobody can
compare or put back."""

NUMBERED = {
    *("_gradient_op_type", "_class", "_forward_func_name", "_backward_func_name", "shared_name", "container", "token"),
}
"""Attributes that hold numbered names, and nothing that is computed."""


class Comparison:
    """Digests of graphs of one model, and whether they say everything.

    Args:
        variables: of the model, in an order that is the same for a model built twice.

    Attributes:
        doubt: why no two models can be compared by these digests, in a few words; empty where they can.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._places = {id(variable.handle): place for place, variable in enumerate(variables)}
        self.doubt = ""

    def digest(self, concrete: Any) -> str:
        """What a `ConcreteFunction` computes: the SHA-256 of its nodes, variables by their places among the model's."""
        graph = concrete.graph
        if graph.deferred_external_captures:
            self.doubt = "it takes in tensors that are made when it runs"
        known = {inside.op.name: self._outside(outside) for outside, inside in graph.captures}
        definition = graph.as_graph_def()
        functions = _Functions(definition.library, self)
        digests = _digests(definition.node, known, functions, self)
        ends = [f"{digests[tensor.op.name]}:{tensor.value_index}" for tensor in graph.outputs]
        structure = tf.nest.map_structure(lambda tensor: None, concrete.structured_outputs)
        return _hash("graph", *sorted(digests.values()), "to", *ends, repr(structure))

    def _outside(self, tensor: Any) -> str:
        """A tensor that a graph takes in from outside."""
        if tensor.dtype == tf.resource:
            place = self._places.get(id(tensor))
            if place is None:
                self.doubt = "it uses a table, an iterator or another resource that is no variable"
            return f"variable {place}"
        if not hasattr(tensor, "numpy") or tensor.dtype == tf.variant:
            self.doubt = "it takes in a tensor whose value is not known beforehand"
            return "unknown"
        return _hash("tensor", tf.io.serialize_tensor(tensor).numpy())


class _Functions:
    """The functions that a graph calls, digested when they are first asked for."""

    def __init__(self, library: Any, comparison: Comparison) -> None:
        self._by_name = {function.signature.name: function for function in library.function}
        self._digests: dict[str, str] = {}
        self._comparison = comparison

    def digest(self, name: str) -> str:
        if name not in self._digests:
            function = self._by_name.get(name)
            if function is None:
                self._comparison.doubt = "it calls a function that its graph does not hold"
                return name
            self._digests[name] = "recursive"
            arguments = {
                argument.name: f"argument {place}" for place, argument in enumerate(function.signature.input_arg)
            }
            digests = _digests(function.node_def, arguments, self, self._comparison)
            ends = [_renamed(function.ret[output.name], digests) for output in function.signature.output_arg]
            kept = sorted(digests[node] for node in function.control_ret.values())
            attributes = _attributes(function.attr, self)
            self._digests[name] = _hash("function", *sorted(digests.values()), "to", *ends, *kept, *attributes)
        return self._digests[name]


def _digests(nodes: Iterable[Any], known: Mapping[str, str], functions: _Functions, seen: Comparison) -> dict[str, str]:
    """The digest of every node by its name; `known` are those of what comes from outside."""
    by_name, digests = {node.name: node for node in nodes}, dict(known)
    # Depth first by a stack of one's own: graphs are deeper than Python's recursion.
    waiting = list(reversed(by_name))
    while waiting:
        name = waiting[-1]
        if name in digests:
            waiting.pop()
            continue
        node = by_name[name]
        missing = [source for source in map(_node_of, node.input) if source not in digests]
        if missing:
            waiting += missing
            continue
        definition = op_def_registry.get(node.op)
        if definition is None or (
            definition.is_stateful and node.op not in STATEFUL and not node.op.startswith(ASSIGNMENTS)
        ):
            seen.doubt = f"it runs {node.op}, whose state cannot be put back"
        data = [_renamed(source, digests) for source in node.input if not source.startswith("^")]
        after = sorted(_renamed(source, digests) for source in node.input if source.startswith("^"))
        digests[name] = _hash(node.op, node.device, *data, *after, *_attributes(node.attr, functions))
    return digests


def _attributes(attributes: Mapping[str, Any], functions: _Functions) -> list[str | bytes]:
    """Names and values in order; functions by what they compute."""
    told: list[str | bytes] = []
    for name in sorted(attributes):
        if name in NUMBERED:
            continue
        value, kind = attributes[name], attributes[name].WhichOneof("value")
        called = [value.func] if kind == "func" else list(value.list.func) if kind == "list" else []
        if called:
            told += [name, *(functions.digest(function.name) for function in called)]
        else:
            told += [name, value.SerializeToString(deterministic=True)]
    return told


def _node_of(source: str) -> str:
    return source.removeprefix("^").partition(":")[0]


def _renamed(source: str, digests: Mapping[str, str]) -> str:
    node, colon, output = source.removeprefix("^").partition(":")
    return f"{digests[node]}{colon}{output}"


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
