#include "ops/elementwise.hpp"
#include "train/trainer.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace konclave {

namespace {

constexpr std::size_t kMostNames = 3;

}  // namespace

std::vector<std::string> Trainer::bad_values() const {
  std::vector<std::string> names;
  runner_.model().visit_parameters([&](const Parameter& parameter) {
    if (ops::all_finite(runner_.exec(), parameter.value_in_any_form())) return;
    names.push_back("the values of " + parameter.name());
  });
  return names;
}

NotFinite Trainer::bad_gradients(int chunk, int place) const {
  NotFinite found;
  runner_.model().visit_places([&](int its_chunk, int its_place, const Parameter& parameter) {
    if (its_chunk != chunk || its_place != place) return;
    if (ops::all_finite(runner_.exec(), parameter.grad())) return;
    found.names.push_back("the gradient of " + parameter.name());
  });
  if (found.names.empty()) return found;
  std::reverse(found.names.begin(), found.names.end());  // as backward makes them
  if (found.names.size() > kMostNames) {
    const std::size_t more = found.names.size() - kMostNames;
    found.names.resize(kMostNames);
    found.names.push_back("and " + std::to_string(more) + " more of that layer");
  }
  const int layers = runner_.model().definition().model.num_layers;
  const int place_in_model = runner_.model().chunk(chunk).part().first_layer + place;
  found.moment = std::int64_t{2} * layers + 4 - place_in_model;
  return found;
}

NotFinite Trainer::find_not_finite(std::int64_t step, const std::vector<HostMicroBatch>& batches) {
  NotFinite output, gradients;
  runner_.observe_layers([&](int layer, const AnyIn& made) {
    if (!output.names.empty() || ops::all_finite(runner_.exec(), made)) return;
    output = {layer + 1, {"the output of layer " + std::to_string(layer)}};
  });
  runner_.observe_places({{}, [&](int chunk, int place) {
                            if (gradients.names.empty()) gradients = bad_gradients(chunk, place);
                          }});
  const std::vector<std::string> values = bad_values();
  optimizer_.restart_gradients();
  const std::vector<double> losses = forward_and_backward(step, count(batches), batches).losses;
  runner_.observe_layers({});
  runner_.observe_places({});
  if (overlaps_) overlap();

  if (!values.empty()) return {0, values};
  if (!output.names.empty()) return output;
  for (std::size_t batch = 0; batch < losses.size(); ++batch) {
    if (std::isfinite(losses[batch])) continue;
    return {runner_.model().definition().model.num_layers + 1,
            {"the loss of micro-batch " + std::to_string(batch) + " of this rank"}};
  }
  return gradients;
}

}  // namespace konclave
