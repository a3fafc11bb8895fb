"""The quick way through a linear map is the same map, also after its weights have changed."""

import pytest
import torch
from torch.nn import functional as F

from hf_captioner.modeling.linear import LARGE, linear


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("columns", [24, LARGE // 32])
@torch.inference_mode()
def test_it_is_the_linear_map_of_its_weights_as_they_are_now(rows: int, columns: int) -> None:
    with torch.inference_mode(False), torch.no_grad():
        weight, bias = torch.nn.Parameter(torch.randn(32, columns)), torch.randn(32)
    x = torch.randn(rows, columns)
    for _ in range(2):
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight), atol=1e-2, rtol=1e-4)
        with torch.inference_mode(False), torch.no_grad():
            weight.mul_(-1)


def test_gradients_flow_where_they_are_asked_for() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6))
    linear(torch.randn(3, 6), weight).sum().backward()
    assert weight.grad is not None and bool(weight.grad.abs().sum() > 0)
