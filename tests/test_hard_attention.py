"""Hard attention: what is drawn, what REINFORCE makes of it, and that the attention learns from it alone."""

import pytest
import torch

from captioning.decoders import hard_attention
from captioning.decoders.hard_attention import Decoder, Settings
from captioning.vocabulary import BOS


def _decoder(lambda_r: float = 1.0, lambda_e: float = 0.0) -> Decoder:
    torch.manual_seed(0)
    settings = Settings(
        name="hard_attention",
        feature_width=16,
        embedding_width=8,
        attention_width=8,
        hidden_width=8,
        dropout=0.0,
        tied_embeddings=False,
        lambda_r=lambda_r,
        lambda_e=lambda_e,
    )
    return Decoder(settings, feature_dim=6, vocabulary_size=8)


def test_half_of_the_captions_draw_a_cell_by_the_attention_and_the_others_see_its_expected_value():
    decoder, num_rows = _decoder(), 20_000
    memory = decoder.prepare(torch.randn(2, 3, 6))
    state = decoder.start(memory, num_rows)
    attention_L = torch.tensor([0.1, 0.2, 0.7])
    attention_NL, weights_NL, (log_choice_N1, entropy_N1) = decoder.look(
        attention_L.log().expand(num_rows, 3), state
    )
    is_drawn_N = state["is_drawn"].squeeze(1)
    assert is_drawn_N.float().mean() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(attention_NL, attention_L.expand(num_rows, 3))
    torch.testing.assert_close(weights_NL[~is_drawn_N], attention_NL[~is_drawn_N])
    drawn_NL = weights_NL[is_drawn_N]
    assert (drawn_NL.amax(dim=1) == 1).all()
    assert (drawn_NL.sum(dim=1) == 1).all()
    torch.testing.assert_close(drawn_NL.mean(dim=0), attention_L, atol=0.02, rtol=0)
    torch.testing.assert_close(
        log_choice_N1.squeeze(1)[is_drawn_N], (drawn_NL * attention_L).sum(dim=1).log()
    )
    assert (log_choice_N1[~is_drawn_N] == 0).all()
    entropy = -(attention_L * attention_L.log()).sum()
    torch.testing.assert_close(entropy_N1, entropy.expand(num_rows, 1))


def test_the_learning_rule_follows_the_paper():
    decoder = _decoder(lambda_r=0.5, lambda_e=0.1)
    decoder.baseline.fill_(-1.0)
    log_choice_W, entropy_W = torch.tensor([-0.2, -0.4, -0.6]), torch.tensor([1.0, 2.0, 3.0])
    loss = decoder.choice_loss(torch.tensor([0, 0, 2]), log_choice_W.unsqueeze(1), entropy_W.unsqueeze(1))
    assert loss is not None
    # Better than the baseline by (-1 + 1) + (-3 + 1) = -2 and by -2 + 1 = -1, caption by caption.
    better_W = torch.tensor([-2.0, -2.0, -1.0])
    expected_W = -0.5 * better_W * log_choice_W - 0.1 * entropy_W
    torch.testing.assert_close(loss(torch.tensor([-1.0, -3.0, -2.0])), expected_W)
    assert float(decoder.baseline) == pytest.approx(0.9 * -1.0 + 0.1 * -2.0)


def test_in_evaluation_mode_nothing_is_drawn_and_the_baseline_stays():
    decoder = _decoder().eval()
    tokens_NT, lengths_N = torch.tensor([[BOS, 4, 5]]), torch.tensor([3])
    memory = decoder.prepare(torch.randn(1, 3, 6))
    forced = decoder(memory, tokens_NT, lengths_N)
    torch.testing.assert_close(decoder(memory, tokens_NT, lengths_N).output_WE, forced.output_WE)
    assert forced.choice_loss is None
    assert float(decoder.state_dict()["baseline"]) == 0


@pytest.mark.parametrize("lambda_r", [0.0, 1.0])
def test_reinforce_alone_teaches_the_attention_where_the_word_is_told(
    lambda_r: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hard_attention, "DRAWN_SHARE", 1.0)  # the expected context would teach it too
    decoder = _decoder(lambda_r=lambda_r)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    tokens_NT, lengths_N = torch.full((32, 1), BOS), torch.ones(32, dtype=torch.long)

    def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One of four cells has a mark and tells which of four words is right; the others tell a wrong one or not."""
        cell_B, word_B, rows_B = torch.randint(4, (32,)), torch.randint(4, (32,)), torch.arange(32)
        features_BLD = torch.nn.functional.one_hot(torch.randint(4, (32, 4)), 6).float()
        features_BLD[rows_B, cell_B] = torch.nn.functional.one_hot(word_B, 6).float()
        features_BLD[rows_B, cell_B, 5] = 1.0
        return features_BLD, cell_B, word_B + 4

    for _ in range(100):
        features_BLD, _, word_B = batch()
        forced = decoder(decoder.prepare(features_BLD), tokens_NT, lengths_N)
        log_probabilities = torch.log_softmax(decoder.words.logits(forced.output_WE), dim=1)
        log_likelihood_W = log_probabilities.gather(1, word_B.unsqueeze(1)).squeeze(1)
        assert forced.choice_loss is not None
        loss = forced.choice_loss(log_likelihood_W.detach()) - log_likelihood_W
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    features_BLD, cell_B, _ = batch()
    with torch.no_grad():
        attention_WL = decoder.eval()(decoder.prepare(features_BLD), tokens_NT, lengths_N).attention_WL
    assert attention_WL is not None
    told = float(attention_WL.gather(1, cell_B.unsqueeze(1)).mean())
    assert told > 0.8 if lambda_r else told < 0.5
