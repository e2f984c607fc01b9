"""Shapes, sizes and the folded full resolution."""

import pytest
import torch

from tasks.autoencoder import bottleneck, training
from tasks.autoencoder.config import ARCHITECTURES
from tasks.autoencoder.folding import FoldedConv, FoldedNorm, fold, fold_rows, unfold
from tasks.autoencoder.network import Autoencoder
from tasks.seeds import torch_stream


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_stream("test network"))


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_eight_frames_become_one_latent_and_a_map_per_level(size: str) -> None:
    network = training.initial(size, "layernorm", 0)  # type: ignore[arg-type]
    spectra = noise(1, 2, 1024, 16)
    with torch.no_grad():
        latents = network.encoder(spectra)
        maps = network.decoder(latents)
        out = network.unet(spectra, torch.ones(1), maps)
    assert latents.shape == (1, 64, 2)
    assert [m.shape[1] * m.shape[2] // c for m, c in zip(maps, ARCHITECTURES[size].channels, strict=True)] == [  # type: ignore[index]
        1024,
        256,
        128,
        64,
        32,
    ]
    assert out.shape == spectra.shape


def test_paper_size_has_the_published_number_of_encoder_parameters() -> None:
    with torch.device("meta"):
        network = Autoencoder(ARCHITECTURES["paper"], "layernorm")
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in network.children()]
    assert counts[0] == pytest.approx(16.26, abs=0.005)
    assert counts[1:] == pytest.approx([17.29, 24.64], rel=0.05)


def test_layernorm_latents_have_mean_0_and_std_1_in_every_frame() -> None:
    with torch.no_grad():
        latents = training.initial("tiny", "layernorm", 0).encoder(noise(2, 2, 1024, 64))
    assert float(latents.mean(1).abs().max()) < 1e-3
    assert float((latents.std(1, correction=0) - 1).abs().max()) < 1e-3
    assert not list(bottleneck.make("layernorm").parameters())


def test_weights_derive_from_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (training.initial("tiny", "tanh", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.stem.weight"], other["encoder.stem.weight"])


@pytest.mark.parametrize(("kernel", "kind"), [((3, 3), "same"), ((1, 1), "same"), ((5, 1), "down"), ((5, 1), "up")])
def test_folded_convolutions_are_the_plain_ones(kernel: tuple[int, int], kind: str) -> None:
    folded = FoldedConv(3, 5, kernel, kind).double()  # type: ignore[arg-type]
    x = noise(2, 3, 16, 6).double()
    if kind == "up":
        given = x.repeat_interleave(4, 2)
        ours = unfold(folded(x))
    else:
        given = x
        ours = folded(fold(x)) if kind == "down" else unfold(folded(fold(x)))
    plain = torch.nn.functional.conv2d(
        given,
        folded.weight,
        folded.bias,
        padding=(kernel[0] // 2, kernel[1] // 2),
        stride=(4 if kind == "down" else 1, 1),
    )
    assert torch.allclose(ours, plain, atol=1e-12)


def test_folded_norm_and_row_values_are_the_plain_ones() -> None:
    norm = FoldedNorm(2, 8).double()
    with torch.no_grad():
        norm.weight.copy_(noise(8))
        norm.bias.copy_(noise(8))
    x, rows = noise(2, 8, 16, 6).double(), noise(2, 16).double()
    plain = torch.nn.functional.group_norm(x, 2, norm.weight, norm.bias)
    assert torch.allclose(unfold(norm(fold(x))), plain, atol=1e-12)
    assert torch.equal(unfold(fold(x) * fold_rows(rows, 8)), x * rows[:, None, :, None])
