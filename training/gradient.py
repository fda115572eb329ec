"""The gradient of one global batch: forward and backward over this rank's part of it, micro-batch by micro-batch."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.data.collate import Features
from training.data.draws import Batch, draw
from training.data.plan import accumulation_of
from training.data.reader import Fault
from training.data.sources import Facts
from training.diffusion.loss import LossTerms
from training.diffusion.objective import Objective
from training.distributed.parallel import unsynced
from training.distributed.world import World
from training.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class Accumulated:
    """What a rank has done of a step before its gradients are applied."""

    terms: Tensor  # [3] its part of the mean loss, mse and vb over the global batch
    samples: int  # of the global batch
    faults: tuple[Fault, ...]  # what this rank could not read
    by_sample: Tensor  # [3, N] float64: timestep, mse and weight of this rank's samples
    flops: int  # of the model on this rank's samples
    data_wait: float  # seconds that the loop stood waiting for a micro-batch


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """How the loss of a model is computed, and its gradient accumulated. Of one run, on one rank."""

    network: Network
    objective: Objective
    facts: Facts
    world: World
    seed: int
    micro_batch: int
    autocast: bool  # bfloat16 over float32 weights

    def accumulate(self, model: nn.Module, stream: Iterator[Features]) -> Accumulated:
        """Forward and backward over this rank's part of a global batch.

        A sample that could not be read adds nothing, and the sum over the others is divided as if it were there.
        """
        terms, faults = torch.zeros(3, device=self.world.device), list[Fault]()
        by_sample, flops, data_wait = list[Tensor](), 0, 0.0
        for micro_step in itertools.count():
            asked = time.perf_counter()
            features = next(stream)
            data_wait += time.perf_counter() - asked
            faults += features.faults
            last = accumulation_of(features.whole, self.micro_batch, self.world.size) - 1
            batch = self.draw(features)
            with unsynced(model, micro_step < last):
                losses = self.losses(model, batch)
                loss = torch.stack([(term * batch.weights).sum() for term in losses]) / features.whole
                # Gradients are means over ranks, DDP's and FSDP's; the global batch needs the sum.
                torch.autograd.backward(loss[0] * self.world.size)
            terms += loss.detach()
            # Copied, since the weights lie in memory that the next batch is read into.
            of_batch = (batch.timesteps, losses.mse, batch.weights)
            by_sample.append(torch.stack([values.detach().double() for values in of_batch]))
            flops += self.network.flops(batch)
            if micro_step == last:
                break
        return Accumulated(terms, features.whole, tuple(faults), torch.cat(by_sample, dim=1), flops, data_wait)

    def draw(self, features: Features) -> Batch:
        """What is random about a micro-batch."""
        return draw(features, self.facts, self.seed, self.objective.timesteps)

    def losses(self, model: nn.Module, batch: Batch) -> LossTerms:
        """The loss of each sample of `batch`, float32 [B] each."""
        noised = self.objective.add_noise(batch.latents, batch.noise, batch.timesteps)
        output = self.predict(model, noised, batch)
        return self.objective.loss(output, batch.latents, batch.noise, batch.timesteps)

    def predict(self, model: nn.Module, noised: Tensor, batch: Batch) -> Tensor:
        """The output of `model` for `noised` [B, C, h, w] under the conditions of `batch`, in the run's precision."""
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.autocast):
            return self.network.predict(model, noised, batch)
