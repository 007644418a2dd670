"""The pieces of a batch: shared out completely, added in one order, cut evenly."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from real.repro.backend.alone import ONE_PROCESS
from real.repro.backend.gradients import Pieces, WholeBatch, gradients_for, num_pieces
from real.repro.backend.pieces import children, cover, inner_nodes, share
from real.repro.backend.ranks import TorchRanks
from real.repro.backend.sections import Distributed
from real.repro.backend.tree import TreeSum
from torch import nn

SIZES = [(m, n) for m in (1, 2, 3, 4, 5, 8, 12) for n in range(1, m + 1)]


@pytest.mark.parametrize(("pieces", "size"), SIZES)
def test_every_piece_belongs_to_one_rank_and_every_branch_to_one_place(pieces, size):
    """The ranks' branches, from left to right, are the pieces once each; all are nodes of the one
    tree, so that joining them gives its sum."""
    shares = [share(pieces, rank, size) for rank in range(size)]
    assert [piece for each in shares for piece in each] == [*range(pieces)]
    assert {len(each) for each in shares} <= {pieces // size, -(-pieces // size)}
    root = (0, pieces)
    nodes = {root} | {node for pair in inner_nodes(root) for node in pair}
    for each in shares:
        branches = cover(root, each)
        assert [p for first, last in branches for p in range(first, last)] == [*each]
        assert set(branches) <= nodes


def test_the_tree_is_the_documented_one():
    """Parted after the largest power of two; five pieces are ((0 1)(2 3)) 4."""
    assert children((0, 5)) == ((0, 4), (4, 5))
    assert children((4, 7)) == ((4, 6), (6, 7))


def test_a_sum_follows_the_tree_and_not_the_order_of_the_pieces():
    """In float32 the two differ here, so that one can tell."""
    values = [1.0, 2.0**-24, 2.0**-24, 2.0**-24]
    tree = TreeSum(4, ONE_PROCESS)
    for piece, value in enumerate(values):
        tree.add(piece, [torch.tensor([value]), None])
    (total, nothing), *_ = tree.total([])
    in_order = torch.zeros(1)
    for value in values:
        in_order += torch.tensor([value])
    assert nothing is None
    assert total.item() == 1.0 + 2.0**-23
    assert in_order.item() == 1.0


class Meeting:
    """Ranks as threads of this process, which exchange what torch.distributed would."""

    def __init__(self, size):
        self.size, self.table = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def swap(self, rank, value):
        self.table[rank] = value
        self.barrier.wait()
        values = [*self.table]
        self.barrier.wait()
        return values


class Rank(TorchRanks):
    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.size = meeting, rank, meeting.size

    def gather(self, value):
        return self.meeting.swap(self.rank, value)

    def send_numbers(self, numbers):
        everybodys = torch.cat(self.meeting.swap(self.rank, numbers.clone()))
        return lambda: everybodys

    def swap(self, outgoing, incoming):
        messages = self.meeting.swap(self.rank, [each.clone() for each in outgoing])
        for number, sent in enumerate(messages):
            if number != self.rank:
                assert sent[self.rank].shape == incoming[number].shape
                incoming[number].copy_(sent[self.rank])


def summed(leaves, size):
    """The sum on each of `size` ranks, of what each piece contributes, step by step."""
    meeting = Meeting(size)

    def work(rank):
        tree = TreeSum(len(leaves[0]), Rank(meeting, rank))
        sums = []
        for step in leaves:
            tree.start()
            mine = share(len(step), rank, size)
            for piece in mine:
                tree.add(piece, [t if t is None else t.clone() for t in step[piece]])
            numbers = [torch.tensor(float(piece), dtype=torch.float64) for piece in mine]
            total, everybodys, has_news = tree.total(numbers, news=rank == size - 1)
            assert [*map(float, everybodys)] == [*range(len(step))]
            assert has_news
            sums.append(total)
        return sums

    with ThreadPoolExecutor(size) as pool:
        return [*pool.map(work, range(size))]


def bits(leaf):
    return [None if t is None else (t.shape, t.dtype, t.view(torch.uint8).tolist()) for t in leaf]


@pytest.mark.parametrize(("pieces", "size"), [each for each in SIZES if each[1] > 1])
def test_a_sum_has_the_same_bits_on_any_number_of_ranks(pieces, size):
    """Uneven shares, several branches a rank, two dtypes, a summand that some pieces lack, one that
    appears at the second step, and zeros whose sign must survive."""
    generator = torch.Generator().manual_seed(pieces)

    def leaf(piece, step):
        draw = torch.randn(3, 5, generator=generator)
        half = torch.randn(7, generator=generator).to(torch.bfloat16)
        rare = torch.full((2,), -0.0) if piece == pieces - 1 else None
        late = torch.randn(1, 1, generator=generator) if step and piece % 2 == 0 else None
        return [draw, half, rare, None, late]

    leaves = [[leaf(piece, step) for piece in range(pieces)] for step in range(3)]
    (alone,) = summed(leaves, 1)
    for sums in summed(leaves, size):
        for step, total in enumerate(sums):
            assert bits(total) == bits(alone[step])
    assert alone[0][2].signbit().all()
    assert alone[0][3] is None
    assert (alone[0][4], alone[1][4] is None) == (None, False)


class Net(nn.Module):
    """With batch normalization, a part that never gets a gradient, and constants."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.idle = nn.Linear(2, 2)
        self.register_buffer("constant", torch.tensor([0.1, float("-inf"), float("nan")]))

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def trained(gradients, batch, net):
    gradients.place(net)
    for piece in gradients.cut([batch], lambda piece: None):
        gradients.backward(net(piece).square().mean())
    return gradients.loss().item()


def test_the_gradients_of_the_pieces_are_those_of_the_batch():
    """But for rounding; of a network without normalization, which sees pieces."""
    torch.manual_seed(0)
    batch = torch.randn(24, 3)
    whole, cut = nn.Linear(3, 1), nn.Linear(3, 1)
    cut.load_state_dict(whole.state_dict())
    before = trained(WholeBatch(1), batch, whole)
    loss = trained(Pieces(3, 1, ONE_PROCESS), batch, cut)
    assert loss == pytest.approx(before, rel=1e-6)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_statistics_become_the_mean_over_the_pieces_and_counters_count_steps():
    """Constants keep their bits, three pieces or not; what has no gradient gets none."""
    torch.manual_seed(0)
    batch = torch.randn(24, 3)
    net, alone = Net(), [Net() for _ in range(3)]
    for each in alone:
        each.load_state_dict(net.state_dict())
    before = net.constant.clone()
    trained(Pieces(3, 1, ONE_PROCESS), batch, net)
    means = []
    for each, piece in zip(alone, batch.chunk(3), strict=True):
        each(piece)
        means.append(each.norm.running_mean)
    torch.testing.assert_close(net.norm.running_mean, sum(means) / 3)
    assert net.norm.num_batches_tracked == 1
    assert torch.equal(net.constant.view(torch.int32), before.view(torch.int32))
    assert net.idle.weight.grad is None


class Watched(nn.Module):
    """A running maximum, which some pieces leave alone; a part that some do not use; a NaN."""

    def __init__(self):
        super().__init__()
        self.always, self.rare = nn.Linear(3, 1), nn.Linear(3, 1).double()
        self.register_buffer("largest", torch.tensor(1.0))
        self.register_buffer("constant", torch.tensor([0.1, float("nan")]))

    def forward(self, x):
        self.largest.copy_(torch.maximum(self.largest, x.detach().max()))
        out = self.always(x)
        return out + self.rare(x.double()) if x.max() > 2 else out


def steps_on(size, batches, net):
    """Gradients, buffers and losses of some steps in four pieces on `size` ranks, by rank."""
    meeting = Meeting(size)

    def work(rank):
        model = Watched()
        model.load_state_dict(net.state_dict())
        ranks = Rank(meeting, rank) if size > 1 else ONE_PROCESS
        pieces, seen = Pieces(4, 1, ranks), []
        pieces.place(model)
        mine = share(4, rank, size)
        for batch in batches:
            model.zero_grad(set_to_none=True)
            width = len(batch) // 4
            for piece in pieces.cut(
                [batch[mine.start * width : mine.stop * width]], lambda p: None
            ):
                pieces.backward(model(piece).square().mean())
            tensors = [*(p.grad for p in model.parameters()), *model.buffers()]
            clones = [
                None if t is None else t.reshape(-1).view(torch.uint8).tolist() for t in tensors
            ]
            seen.append((clones, float(pieces.loss())))
        return seen

    with ThreadPoolExecutor(size) as pool:
        return [*pool.map(work, range(size))]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_what_only_some_pieces_change_does_not_depend_on_the_ranks(size):
    """A buffer that a piece leaves alone counts with its value from before, whoever computes it; a
    dtype without a gradient on one rank, and a constant with a NaN in it, are no trouble."""
    torch.manual_seed(3)
    net, batches = Watched(), [torch.randn(8, 3).clamp(-1.5, 1.5) for _ in range(4)]
    batches[1][0, 0], batches[2][7, 1], batches[3][2, 2] = 5.0, 7.0, 9.0
    (alone,) = steps_on(1, batches, net)
    assert steps_on(size, batches, net) == [alone] * size
    maxima = [torch.tensor(clones[4], dtype=torch.uint8).view(torch.float32) for clones, _ in alone]
    highest = batches[0].view(4, -1).max(dim=1).values
    assert maxima[0].item() == torch.maximum(highest, torch.tensor(1.0)).mean().item()
    assert maxima[1] > maxima[0]


def test_a_count_that_differs_between_pieces_is_refused():
    """It has no mean, and the last piece's would depend on the ranks: one line names it."""

    class Counting(nn.Linear):
        def forward(self, x):
            self.seen += int(x.max() > 0)
            return super().forward(x)

    net = Counting(3, 1)
    net.register_buffer("seen", torch.tensor(0))
    pieces = Pieces(2, 1, ONE_PROCESS)
    pieces.place(net)
    batch = torch.tensor([[1.0] * 3, [-1.0] * 3])
    with pytest.raises(ValueError, match="the buffer seen counts differently for two pieces"):
        for piece in pieces.cut([batch], lambda piece: None):
            pieces.backward(net(piece).mean())


def test_a_sparse_gradient_is_refused():
    """In one line, with the two ways out."""
    net = nn.Embedding(4, 2, sparse=True)
    pieces = Pieces(2, 1, ONE_PROCESS)
    pieces.place(net)
    with pytest.raises(ValueError, match=r"a gradient is sparse.*sparse=True.*num_pieces=1"):
        for piece in pieces.cut([torch.arange(4)], lambda piece: None):
            pieces.backward(net(piece).mean())


def test_gradients_from_before_are_added_to():
    """As a plain backward pass does: two losses of one step, without zero_grad between them."""
    batch, net = torch.ones(4, 3), nn.Linear(3, 1)
    pieces = Pieces(2, 1, ONE_PROCESS)
    trained(pieces, batch, net)
    once = net.weight.grad.clone()
    for piece in pieces.cut([batch], lambda piece: None):
        pieces.backward(net(piece).square().mean())
    torch.testing.assert_close(net.weight.grad, 2 * once)


def test_accumulated_parts_and_a_scaler_go_along():
    """Two parts of two pieces are a batch of four; a scaler multiplies the gradients only."""

    class Scaler:
        def scale(self, loss):
            return 8 * loss

    batch, net, other = torch.randn(8, 3), nn.Linear(3, 1), nn.Linear(3, 1)
    other.load_state_dict(net.state_dict())
    net(batch).square().mean().backward()
    pieces = Pieces(2, 2, ONE_PROCESS)
    pieces.place(other)
    for piece in pieces.cut([*batch.chunk(2)], lambda piece: None):
        pieces.backward(other(piece).square().mean(), Scaler())
    torch.testing.assert_close(other.weight.grad, 8 * net.weight.grad)
    assert pieces.loss().item() == pytest.approx(net(batch).square().mean().item())


@pytest.mark.parametrize(("calls", "told"), [(0, "never"), (2, "more than once")])
@pytest.mark.parametrize("gradients", [WholeBatch(1), Pieces(2, 1, ONE_PROCESS)])
def test_a_piece_has_one_backward_pass(gradients, calls, told):
    """Otherwise the gradients are not those of the batch: one line."""
    net = nn.Linear(3, 1)
    gradients.place(net)
    with pytest.raises(ValueError, match=f"run.backward was called {told}"):
        for piece in gradients.cut([torch.ones(4, 3)], lambda piece: None):
            for _ in range(calls):
                gradients.backward(net(piece).mean())


def test_streams_and_numbers_of_pieces():
    """One piece is today's loop; `ordered` has a piece for each rank."""
    assert isinstance(gradients_for(1, 2, ONE_PROCESS), WholeBatch)
    assert not isinstance(gradients_for(1, 2, ONE_PROCESS), Pieces)
    assert num_pieces(Distributed(num_pieces=4), ONE_PROCESS) == 4
    assert num_pieces(Distributed(num_pieces=4, gradients="ordered"), ONE_PROCESS) == 1
