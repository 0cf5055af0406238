"""Train one run, from the start or from its last checkpoint, to the same end."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from xnets.data.batches import Batches
from xnets.data.packed import PackedData
from xnets.errors import Stopped, XNetsError
from xnets.graphs import combined_hash
from xnets.group import ALONE, Group
from xnets.layers import ExpanderLayer, for_training
from xnets.layers.choice import kernel_in_force
from xnets.models import build_spec
from xnets.models.names import ModelName
from xnets.seeds import derive_seed
from xnets.training.checkpoint import load_state, save_state
from xnets.training.distributed import wrap
from xnets.training.protocol import Protocol
from xnets.training.run import Run

CHECKPOINT = "checkpoint.pt"  # while a run is under way: all of its state
MODEL = "model.pt"  # when it is done: the network alone

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(XNetsError):
    """The loss is no longer a number."""


def build_run(run: Run, device: torch.device) -> nn.Module:
    """The untrained network of a run, with its graphs and its initial weights."""
    torch.manual_seed(derive_seed(run.train_seed, "weights"))
    model = build_spec(run.model, run.graph_seed).to(device)
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model


def train(
    run: Run,
    data: PackedData,
    folder: Path,
    device: torch.device,
    checkpoint_seconds: float = 60.0,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
    compiled: bool = False,
) -> dict[str, Any]:
    """Train `run` in `folder`, going on from the checkpoint there, and leave MODEL behind.

    The checkpoint stays: it is the caller's to delete, once he has written down what is returned.

    Args:
        run: what to train.
        data: its prepared data.
        folder: holds the checkpoint, and in the end the model.
        device: where to compute; on the CPU the result is the same to the last bit however often it was interrupted, by
            one process or two; more add up gradients in another order after each start.
        checkpoint_seconds: write a checkpoint when so much time has passed since the last, by any rank's clock.
        on_epoch: told of each epoch, those before the checkpoint again: epoch, lr, train_loss, train_top1, test_loss,
            test_top1 (nats and %). Rank 0 alone tells it, and writes files.
        stop: asked after each batch, of the test set too; once it says True on any rank, a checkpoint is written and
            all raise Stopped.
        group: the processes that share each batch. Another number of them gives the same result but for rounding (and
            dropout's draws), so it may change from one interruption to the next.
        compiled: let torch.compile fuse what is between the convolutions, for batches of full size: other last bits,
            other draws of dropout, and half a minute to begin with. Only where one process trains the run.

    Returns:
        epochs (the list of those records), graphs_sha256 and weights_sha256, on every rank.

    Raises:
        Diverged: a loss that is not finite. Stopped: see `stop`. XNetsError: a damaged checkpoint, a full disk, fp16
        on a CPU, no compiler for `compiled`.
    """
    protocol = run.protocol
    if protocol.precision == "fp16" and device.type == "cpu":
        raise XNetsError("Precision fp16 needs a GPU: on a CPU use bf16 or fp32.")
    batches = Batches(data, protocol.batch_size, protocol.augmentation, device, group)
    model = build_run(run, device)
    alone = group.size == 1
    parallel = in_fast_layout(model, run.model.parsed) if alone and not compiled else wrap(model, device, group)
    on_full_batches = _compiled(model, run) if compiled and alone else parallel
    optimizer = torch.optim.SGD(
        model.parameters(), protocol.max_lr, protocol.momentum, weight_decay=protocol.weight_decay,
        nesterov=protocol.nesterov, fused=True,
    )  # fmt: skip
    scaler = torch.amp.GradScaler(device.type, enabled=protocol.precision == "fp16")
    torch.manual_seed(derive_seed(run.train_seed, "dropout"))
    tell = on_epoch if group.rank == 0 else lambda record: None
    history: list[dict[str, Any]] = []
    first_step, sums = 0, torch.zeros(2, dtype=torch.float64, device=device)  # of losses, of right answers
    if group.any((folder / CHECKPOINT).exists())[0]:
        state = load_state(folder / CHECKPOINT, run.fingerprint, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        history, first_step = state["history"], state["step"]
        if group.rank == 0:
            # The sums over all ranks. Who holds them moves at most the last bits of train_loss, and no weight: float64
            # adds float32 losses without rounding while the sum is below 2^29 times the smallest of them.
            sums = state["sums"]
        for record in history:
            tell(record)
        _set_rng(state["rng"], device)

    def save(step: int) -> None:
        total = group.sum_(sums.clone())
        _check_finite(total, run, len(history))
        if group.rank == 0:
            save_state(folder / CHECKPOINT, {
                "fingerprint": run.fingerprint, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(), "history": history, "step": step, "sums": total, "rng": _get_rng(device),
            })  # fmt: skip
        group.wait()  # a launcher that sees one process end may end the one that still writes

    saved = time.monotonic()

    def save_if_due(step: int) -> None:
        nonlocal saved
        stopping, due = group.any(stop(), time.monotonic() - saved > checkpoint_seconds)
        if stopping or due:
            save(step)
            saved = time.monotonic()
        if stopping:
            raise Stopped(f"{run.label} was stopped in epoch {len(history)}; its checkpoint is in {folder}.")

    for epoch in range(len(history), protocol.epochs):
        lr = protocol.learning_rate(epoch)
        for parameters in optimizer.param_groups:
            parameters["lr"] = lr
        model.train()
        for step, (x, y) in enumerate(batches.train(run.train_seed, epoch, first_step), first_step):
            n = batches.size(step)
            if group.rank > 0:  # the checkpoint has rank 0's stream of dropout; the others need none to go on
                torch.manual_seed(derive_seed(run.train_seed, "dropout", group.rank, epoch, step))
            with _precision(protocol, device):
                logits = (on_full_batches if n == protocol.batch_size else parallel)(x)
                loss = _mean_loss(logits, y, n, group)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            sums += torch.stack([loss.detach() * (n / group.size), (logits.argmax(1) == y).sum()])
            save_if_due(step + 1)
        total = group.sum_(sums.clone())
        _check_finite(total, run, epoch)
        seen = min(batches.steps * protocol.batch_size, batches.n_train)
        test = evaluate(model, batches, protocol, lambda: save_if_due(batches.steps))
        history.append({
            "epoch": epoch, "lr": lr, "train_loss": float(total[0]) / seen, "train_top1": 100 * float(total[1]) / seen,
            "test_loss": test["loss"], "test_top1": test["top1"],
        })  # fmt: skip
        first_step, sums = 0, torch.zeros_like(sums)
        tell(history[-1])
        if len(history) < protocol.epochs:
            save_if_due(0)
    if group.rank == 0:
        save_state(folder / MODEL, {"fingerprint": run.fingerprint, "model": model.state_dict()})
    group.wait()
    return {"epochs": history, "graphs_sha256": graphs_digest(model), "weights_sha256": weights_digest(model)}


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Batches, protocol: Protocol, between: Callable[[], None] = lambda: None
) -> dict[str, float | int]:
    """loss (nats), top1 and top5 (%) and n on the test set; the model is left in evaluation mode.

    between: called before each batch but the first.
    """
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=batches.device)
    for place, (x, y) in enumerate(batches.test()):
        if place > 0:
            between()
        with _precision(protocol, batches.device):
            logits = model(x).float()
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == y.unsqueeze(1)
        sums += torch.stack([F.cross_entropy(logits, y, reduction="sum"), hits[:, 0].sum(), hits.sum()])
    batches.group.sum_(sums)
    n = batches.n_test
    # a diverged network may answer with numbers that are none: JSON has no NaN
    loss = float(sums[0]) / n if math.isfinite(float(sums[0])) else None
    return {"loss": loss, "top1": 100 * float(sums[1]) / n, "top5": 100 * float(sums[2]) / n, "n": n}


def evaluate_run(
    run: Run, data: PackedData, folder: Path, device: torch.device, group: Group = ALONE
) -> dict[str, Any]:
    """Evaluate a finished run from the model it left in `folder`."""
    if not group.any((folder / MODEL).exists())[0]:
        raise XNetsError(f"{folder / MODEL} is missing: delete {folder} to train {run.label} again.")
    model = build_run(run, device)
    model.load_state_dict(load_state(folder / MODEL, run.fingerprint, device)["model"])
    batches = Batches(data, run.protocol.batch_size, run.protocol.augmentation, device, group)
    return {**evaluate(model, batches, run.protocol), "weights_sha256": weights_digest(model)}


def graphs_digest(model: nn.Module) -> str:
    """sha256 over the hashes of a network's graphs, layer by layer."""
    hashes = [layer.graph.hash for layer in model.modules() if isinstance(layer, ExpanderLayer)]
    return combined_hash(hashes)


def weights_digest(model: nn.Module) -> str:
    """sha256 of all parameters and buffers: equal if and only if two networks are the same to the last bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _precision(protocol: Protocol, device: torch.device) -> AbstractContextManager:
    dtype = _AUTOCAST[protocol.precision]
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def in_fast_layout(model: nn.Module, name: ModelName) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as training steps call it, with batches that come channels_last.

    On a CPU X-DenseNets are faster contiguous, since they concatenate maps, and for_training has norms for it. Others
    keep torch's norms, by which the runs in published/ came to their bits.
    """
    if (name.kind, name.family) != ("X", "densenet") or kernel_in_force() not in ("auto", "direct"):
        return model
    if next(model.parameters()).device.type != "cpu":
        return model
    for_training(model)
    return lambda x: model(x.contiguous())


def _compiled(model: nn.Module, run: Run) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as its first call compiles it, for that size of batch."""
    # each network of a class counts, and beyond the limit torch would quietly not compile
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000
    fused = torch.compile(model)

    def forward(x: torch.Tensor) -> torch.Tensor:
        try:
            return fused(x)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            why = str(error).splitlines()[0]
            raise XNetsError(f"{run.label} cannot be compiled here ({why}): train it without local.compile.") from None

    return forward


def _mean_loss(logits: torch.Tensor, y: torch.Tensor, n: int, group: Group) -> torch.Tensor:
    """The loss whose average over the ranks, as of gradients, is the mean cross entropy over the global batch of n."""
    if group.size == 1:
        return F.cross_entropy(logits, y)  # a sum divided by n may round differently, and engine 1 is this
    return F.cross_entropy(logits, y, reduction="sum") * (group.size / n)


def _check_finite(sums: torch.Tensor, run: Run, epoch: int) -> None:
    if not torch.isfinite(sums).all():
        raise Diverged(
            f"{run.label} diverged: its loss was no longer a number in epoch {epoch} (lr "
            f"{run.protocol.learning_rate(epoch):g}); lower max_lr for it."
        )


def _get_rng(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_rng(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
