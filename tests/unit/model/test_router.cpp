#include "moe/router.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <map>
#include <string>

namespace konclave {
namespace {

constexpr int kTokens = 9, kHidden = 6, kExperts = 8, kTopK = 3;

MoeConfig config(const std::string& router_dtype, const std::string& score_function) {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.top_k = kTopK;
  moe.router_dtype = router_dtype;
  moe.score_function = score_function;
  moe.scaling_factor = 1.5;
  moe.balancing = {"aux_loss"};
  moe.aux_loss_coefficients = {0.3};
  moe.z_loss_coefficient = 0.05;
  return moe;
}

/// A router of a model in `type`, run forward and twice backward.
struct RouterRun : Workbench {
  RouterRun(DType type, const MoeConfig& moe)
      : router("router", kHidden, 0.5, type, moe, Groups::alone(), storage()) {
    router.visit_parameters([&](Parameter& parameter) {
      weight = parameter.value();
      gradient = parameter.grad();
    });
    from_doubles(exec, rounded("w", kExperts * kHidden), weight);
    router.prepare(exec, operations);
    const auto tensor = [&](const std::string& name, DType of, std::int64_t rows) {
      const AnyView view = tensors.poisoned(of, rows, kHidden);
      from_doubles(exec, rounded(name, rows * kHidden), view);
      return view;
    };
    const AnyView x = tensor("x", type, kTokens), dx = tensor("dx", type, kTokens);
    const AnyView dweights = tensors.poisoned(accum_type(type), kTokens * kTopK);
    from_doubles(exec, rounded("dw", kTokens * kTopK), dweights);
    const MoeStep step = moe_step({0, 4, 9}, 4, 1, kExperts);
    set(gradient, 0);
    plan = router.forward(context(), x, step, /*layer=*/0, saved);
    for (int time = 0; time < 2; ++time) router.backward(context(), saved, dweights, dx);
    results["experts"] = {};
    for (const int expert : to_host(exec, plan.expert_ids)) results["experts"].push_back(expert);
    results["weights"] = to_doubles(exec, plan.weights);
    results["scores or logits"] = to_doubles(exec, saved.of_logits);
    results["gradient"] = to_doubles(exec, gradient);
    results["dx"] = to_doubles(exec, dx);
  }
  /// The same for every type: what the narrowest can hold.
  std::vector<double> rounded(const std::string& name, std::int64_t size) {
    std::vector<double> values = random_values(name, size);
    for (double& value : values)
      value = static_cast<double>(float{Bf16(static_cast<float>(value))});
    return values;
  }

  Router router;
  AnyView weight, gradient;
  Router::Saved saved;
  RoutingPlan plan;
  std::map<std::string, std::vector<double>> results;
};

/// In fp64 a router of a bf16 or fp32 model is that of an fp64 model, up to the types of what it
/// hands out.
TEST(RouterType, Fp64IsThatOfAnFp64Model) {
  for (const std::string score_function : {"softmax", "sigmoid"}) {
    RouterRun exact(DType::fp64, config("fp32", score_function));
    EXPECT_EQ(exact.saved.lse.type(), DType::fp64);
    for (const DType type : {DType::bf16, DType::fp32}) {
      SCOPED_TRACE(score_function + " " + std::string(name_of(type)));
      RouterRun wide(type, config("fp64", score_function));
      EXPECT_EQ(wide.saved.lse.type(), DType::fp64);
      EXPECT_EQ(wide.plan.weights.type(), DType::fp32);
      EXPECT_EQ(wide.weight.type(), DType::fp32);
      EXPECT_EQ(wide.results["experts"], exact.results["experts"]);
      const std::string inner = "scores or logits";
      EXPECT_TRUE(close(wide.results[inner], exact.results[inner], tolerance(DType::fp64)));
      for (const std::string name : {"weights", "gradient"}) {
        EXPECT_TRUE(close(wide.results[name], exact.results[name], tolerance(DType::fp32))) << name;
      }
      EXPECT_TRUE(close(wide.results["dx"], exact.results["dx"], tolerance(type)));
    }
  }
}

TEST(RouterType, Fp32IsNotAsExact) {
  RouterRun exact(DType::fp64, config("fp32", "softmax")),
      narrow(DType::fp32, config("fp32", "softmax"));
  EXPECT_EQ(narrow.saved.lse.type(), DType::fp32);
  const std::string inner = "scores or logits";
  EXPECT_TRUE(close(narrow.results[inner], exact.results[inner], tolerance(DType::fp32)));
  EXPECT_FALSE(close(narrow.results[inner], exact.results[inner], Tolerance{1e-10, 1e-10}));
}

}  // namespace
}  // namespace konclave
