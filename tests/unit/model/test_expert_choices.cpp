#include "moe/expert_choices.hpp"
#include "moe/moe_layer.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

constexpr int kExperts = 8, kHidden = 6, kTopK = 2, kLayers = 3, kTokens = 9;

class Replay : public testing::Test, public Workbench {
 protected:
  using Use = ExpertChoices::Use;

  static MoeConfig config(const std::string& score) {
    MoeConfig moe;
    moe.num_experts = kExperts;
    moe.top_k = kTopK;
    moe.ffn_hidden_size = 3;
    moe.score_function = score;
    moe.balancing = {"aux_loss"};
    moe.aux_loss_coefficients = {0.2};
    return moe;
  }
  std::unique_ptr<MoeLayer> layer(const std::string& name, int index = 1,
                                  const std::string& score = "softmax") {
    return std::make_unique<MoeLayer>(name, index,
                                      MoeLayerConfig{config(score), kHidden, DType::fp64},
                                      Groups::alone(), storage());
  }
  /// Windows of `tokens` rows each, which begin with this token of the run; choices have room for
  /// tokens 100 .. 119.
  MoeStep step_of(int windows, int tokens, std::int64_t first_token, Use use) {
    std::vector<int> offsets;
    for (int w = 0; w <= windows; ++w) offsets.push_back(w * tokens);
    MoeStep step = moe_step(offsets, tokens, kLayers, kExperts);
    step.windows.first_token = first_token;
    step.choices = {use, View2<int>(choices.data(), choices.size() / kTopK, std::size_t{kTopK}),
                    /*first_token=*/100, kLayers};
    return step;
  }
  std::vector<int> chosen(MoeLayer& of, const MoeStep& step, const AnyIn& x) {
    MoeLayer::Saved saved;
    const AnyView y = tensors.poisoned(DType::fp64, x.extent(0), kHidden);
    of.prepare(exec, operations);
    of.forward(context(), step, x, /*residual=*/{}, saved, y);
    const View2<const int> experts = saved.router.experts;
    return to_host(exec, View1<const int>(experts.data(), experts.size()));
  }

  MemoryAccount account;
  Arena memory{account, MemoryClass::buffers, "choices"};
  View1<int> choices = upload(exec, memory, std::vector<int>(20 * kLayers * kTopK, -1));
};

TEST_F(Replay, FollowsWhatOtherWeightsChose) {
  const auto recorded = layer("one"), replayed = layer("two");
  randomised_leaves(exec, *recorded, 1);
  randomised_leaves(exec, *replayed, 1);
  const AnyView x = tensors.random("x", DType::fp64, 2 * kTokens, kHidden);
  const std::vector<int> expected = chosen(*recorded, step_of(2, kTokens, 102, Use::record), x);
  EXPECT_NE(chosen(*replayed, step_of(2, kTokens, 102, Use::none), x), expected);
  EXPECT_EQ(chosen(*replayed, step_of(2, kTokens, 102, Use::replay), x), expected);
  // In micro-batches of one window, and in a window of all.
  EXPECT_EQ(chosen(*replayed, step_of(1, 2 * kTokens, 102, Use::replay), x), expected);
  EXPECT_EQ(chosen(*replayed, step_of(1, kTokens, 102 + kTokens, Use::replay),
                   AnyIn(x).slice(kTokens, kTokens)),
            std::vector<int>(expected.begin() + kTokens * kTopK, expected.end()));
}

TEST_F(Replay, EachTokenAndLayerHasARow) {
  const auto recorded = layer("one");
  randomised_leaves(exec, *recorded, 1);
  const std::vector<int> expected = chosen(*recorded, step_of(1, kTokens, 102, Use::record),
                                           tensors.random("x", DType::fp64, kTokens, kHidden));
  const std::vector<int> rows = to_host(exec, View1<const int>(choices));
  for (int token = 0; token < 20; ++token) {
    for (int place = 0; place < kLayers * kTopK; ++place) {
      const bool noted = token >= 2 && token < 2 + kTokens && place / kTopK == 1;
      const auto at = static_cast<std::size_t>(token * kLayers * kTopK + place);
      EXPECT_EQ(
          rows[at],
          noted ? expected[static_cast<std::size_t>((token - 2) * kTopK + place % kTopK)] : -1);
    }
  }
}

TEST_F(Replay, ARepeatedForwardNotesNothing) {
  const auto recorded = layer("one");
  randomised_leaves(exec, *recorded, 1);
  MoeStep again = step_of(1, kTokens, 100, Use::record);
  again.counts = false;
  chosen(*recorded, again, tensors.random("x", DType::fp64, kTokens, kHidden));
  EXPECT_EQ(to_host(exec, View1<const int>(choices)), std::vector<int>(20 * kLayers * kTopK, -1));
}

TEST_F(Replay, TokensWithoutAPlaceAreRefused) {
  const auto replayed = layer("two");
  randomised_leaves(exec, *replayed, 1);
  const AnyView x = tensors.random("x", DType::fp64, kTokens, kHidden);
  for (const std::int64_t first : {99, 112}) {
    EXPECT_THROW(chosen(*replayed, step_of(1, kTokens, first, Use::replay), x), Error);
  }
}

TEST_F(Replay, GradientsAreThoseOfTheGivenChoice) {
  for (const char* score : {"softmax", "sigmoid"}) {
    SCOPED_TRACE(score);
    std::vector<int> given(20 * kLayers * kTopK);
    for (std::size_t i = 0; i < given.size(); ++i) {
      given[i] = static_cast<int>(3 * i + i / 6) % kExperts;
    }
    to_device(exec, given, choices);
    const auto replayed = layer("moe", 0, score);
    const MoeStep step = step_of(1, kTokens, 100, Use::replay);
    const AnyView sums(DType::fp64, step.statistics.sums.data(),
                       {kLayers, MoeStatistics::columns(kExperts), 1}, 2);
    MoeLayer::Saved saved;
    expect_layer_gradients(
        *replayed, tensors.random("x", DType::fp64, kTokens, kHidden),
        [&](const AnyIn& in, const AnyView& y) {
          set(sums, 0);
          replayed->prepare(exec, operations);
          replayed->forward(context(), step, in, /*residual=*/{}, saved, y);
        },
        [&](const AnyIn& dy, const AnyView& dx) { replayed->backward(context(), saved, dy, dx); },
        [&] { return to_doubles(exec, sums)[MoeStatistics::kAuxLoss]; });
  }
}

}  // namespace
}  // namespace konclave
