"""Networks made for running: batch norms folded, sparse layers along their edges, maps packed from end to end."""

from xnets.inference.network import InferenceNetwork, for_inference

__all__ = ["InferenceNetwork", "for_inference"]
