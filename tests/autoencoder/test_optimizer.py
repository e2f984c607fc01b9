"""RAdam on one flat vector."""

import torch

from tasks.autoencoder.optimizer import FlatParameters, RAdam
from tasks.seeds import torch_stream


def test_steps_are_those_of_the_reference() -> None:
    start = torch.randn(12, generator=torch_stream("test optimizer")).double()
    ours = [torch.nn.Parameter(start[:8].clone().reshape(2, 4)), torch.nn.Parameter(start[8:].clone())]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    flat = FlatParameters(ours)
    mine, reference = RAdam(flat), torch.optim.RAdam(theirs, lr=0.05)
    for count in range(1, 40):
        for a, b in (ours, theirs):
            ((a.sin() * 3).sum() + (b**2).sum() * count).backward()
        mine.step(count, 0.05)
        reference.step()
        reference.zero_grad()
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].data_ptr() == flat.values.data_ptr()
    assert not flat.gradient.any()
