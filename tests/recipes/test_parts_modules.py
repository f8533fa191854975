"""The momentum teacher and the decoder."""

import pytest
import torch
from torch import nn

from recipes.parts.decoder import TokenDecoder
from recipes.parts.standardise import BatchStandardise, centre_places
from recipes.parts.teacher import MomentumTeacher


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


def test_the_teacher_is_an_average_by_hand() -> None:
    student = Student()
    nn.init.constant_(student.linear.weight, 1.0)
    teacher = MomentumTeacher(student)
    nn.init.constant_(student.linear.weight, 3.0)
    student.norm.running_mean.fill_(10.0)
    student.norm.num_batches_tracked.fill_(7)
    teacher.update(student, 0.75)
    assert teacher.module.linear.weight.tolist() == [[1.5, 1.5]]
    assert teacher.module.norm.running_mean.item() == pytest.approx(2.5)
    assert teacher.module.norm.num_batches_tracked.item() == 7
    assert student.linear.weight.tolist() == [[3.0, 3.0]]


def test_the_teacher_has_no_gradient_and_no_training_mode() -> None:
    teacher = MomentumTeacher(Student()).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher(torch.ones(1, 2, requires_grad=True)).requires_grad


@pytest.fixture
def decoder() -> TokenDecoder:
    torch.manual_seed(0)
    decoder = TokenDecoder(6, 8, 2, 2, tokens=12).eval()
    for parameter in decoder.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(3)
    return decoder


@torch.no_grad()
def test_all_positions_come_in_raster_order_whatever_the_order_of_the_visible(decoder: TokenDecoder) -> None:
    tokens, visible = torch.randn(2, 3, 6), torch.tensor([[7, 1, 4], [0, 11, 5]])
    order = torch.tensor([2, 0, 1])
    straight = decoder(tokens, visible)
    assert straight.shape == (2, 12, 6)
    torch.testing.assert_close(decoder(tokens[:, order], visible[:, order]), straight, rtol=0, atol=1e-5)
    changed = decoder(tokens, visible[:, order])  # the same tokens said to be elsewhere
    assert (changed - straight).abs().max() > 1e-3


@torch.no_grad()
def test_wanted_positions_come_in_the_order_asked_for(decoder: TokenDecoder) -> None:
    tokens, visible = torch.randn(1, 3, 6), torch.tensor([[7, 1, 4]])
    wanted = torch.tensor([[0, 2, 9, 1]])  # one of them visible
    order = torch.tensor([3, 1, 0, 2])
    straight = decoder(tokens, visible, wanted)
    assert straight.shape == (1, 4, 6)
    torch.testing.assert_close(decoder(tokens, visible, wanted[:, order]), straight[:, order], rtol=0, atol=1e-5)
    assert (straight[:, order] - straight).abs().max() > 1e-3


@torch.no_grad()
def test_asking_for_all_hidden_is_the_same_as_asking_for_all(decoder: TokenDecoder) -> None:
    tokens, visible = torch.randn(1, 3, 6), torch.tensor([[7, 1, 4]])
    hidden = torch.tensor([[n for n in range(12) if n not in (7, 1, 4)]])
    torch.testing.assert_close(
        decoder(tokens, visible, hidden), decoder(tokens, visible)[:, hidden[0]], rtol=0, atol=1e-5
    )


def test_standardised_rows_by_hand() -> None:
    rows = torch.tensor([[[1.0, 5.0], [3.0, 5.0]]])
    torch.testing.assert_close(BatchStandardise()(rows), torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]]), rtol=0, atol=1e-5)


def test_the_mean_of_a_place_is_taken_away_and_nothing_else() -> None:
    tokens = torch.tensor([[[1.0], [10.0]], [[3.0], [30.0]]], requires_grad=True)
    places = torch.tensor([[0, 2], [0, 2]])
    centred = centre_places(tokens, places, 4)
    assert centred.flatten().tolist() == [-1.0, -10.0, 1.0, 10.0]
    # a token that says nothing but its place is left with nothing
    assert centre_places(places.unsqueeze(-1).float(), places, 4).abs().max() == 0
    centred.sum().backward()
    assert torch.equal(tokens.grad, torch.ones_like(tokens))
