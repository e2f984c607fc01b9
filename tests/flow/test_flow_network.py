from __future__ import annotations

import torch

from tasks.flow.network import Attention, Flow, new_flow, rotate


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_paper_size_has_the_published_parameter_counts() -> None:
    flow = new_flow("paper", seed=0)
    backbone, head = flow.backbone, flow.head
    assert count(backbone) == 12_621_056  # 12.62 M
    assert count(head) == 4_099_648  # 4.10 M
    assert count(flow) == 16_720_704  # 16.7 M
    assert count(new_flow("paper", seed=0, null_context=True)) == 16_720_704 + 256


def test_the_paper_size_drops_a_tenth_of_embedding_attention_and_feedforward() -> None:
    backbone = new_flow("paper", seed=0).backbone
    assert [module.p for module in backbone.modules() if isinstance(module, torch.nn.Dropout)] == [0.1] * (1 + 12)
    assert [module.dropout for module in backbone.modules() if isinstance(module, Attention)] == [0.1] * 12
    frames = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.equal(backbone.train()(frames), backbone(frames))
        assert torch.equal(backbone.eval()(frames), backbone(frames))


def test_a_changed_frame_leaves_the_contexts_before_it_bit_for_bit() -> None:
    flow = new_flow("tiny", seed=3).eval()
    frames = torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0))
    changed = frames.clone()
    changed[0, 30] += 1.0
    with torch.no_grad():
        before, after = flow.backbone(frames)[0], flow.backbone(changed)[0]
    assert torch.equal(before[:30], after[:30])
    assert not torch.isclose(before[30:], after[30:]).all(dim=-1).any()


def test_rotary_attention_scores_depend_on_distance_alone() -> None:
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(16, generator=random), torch.randn(16, generator=random)
    scores = rotate(query.expand(12, 16), 8) @ rotate(key.expand(12, 16), 8).T
    assert torch.allclose(scores[5, 2], scores[11, 8], atol=1e-5)
    assert not torch.allclose(scores[5, 2], scores[5, 3], atol=1e-3)


def test_the_first_layer_is_that_of_frame_and_context_joined() -> None:
    head = new_flow("tiny", seed=0).head
    random = torch.Generator().manual_seed(1)
    x, context = torch.randn(5, 64, generator=random), torch.randn(5, 64, generator=random)
    of_x, of_context = head.inlet_parts()
    joined = head.inlet(torch.cat([x, context], dim=-1))
    assert torch.allclose(x @ of_x.T + context @ of_context.T + head.inlet.bias, joined, atol=1e-5)


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(1)
    first = new_flow("tiny", seed=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = new_flow("tiny", seed=7)
    assert torch.equal(state, torch.get_rng_state())
    assert same(first, second)
    assert not same(first, new_flow("tiny", seed=8))


def test_a_new_head_ignores_time_but_not_context() -> None:
    head = new_flow("tiny", seed=0).head
    random = torch.Generator().manual_seed(1)
    x, context = torch.randn(1, 1, 5, 64, generator=random), torch.randn(1, 5, 64, generator=random)
    early, late = (head(x, context, torch.full((1, 1), tau)) for tau in (0.1, 0.9))
    assert torch.equal(early, late)
    assert not torch.allclose(early, head(x, context + 1, torch.full((1, 1), 0.1)))


def same(a: Flow, b: Flow) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
