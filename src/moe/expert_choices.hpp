#pragma once

#include "moe/moe_step.hpp"

namespace konclave {

/// Notes the experts (T,K) that an MoE layer chose, with ExpertChoices::Use::record; else nothing.
/// `layer` counts MoE layers.
void record_choice(const ExecSpace& exec, const MoeStep& step, int layer, In2<int> chosen);

/// chosen (T,K) = the experts that ExpertChoices has for the layer.
void replay_choice(const ExecSpace& exec, const MoeStep& step, int layer, View2<int> chosen);

}  // namespace konclave
