#pragma once

#include "parallel/pipeline_layout.hpp"
#include "parallel/schedule.hpp"

#include <string>

namespace konclave {

/// "embedding, layers 0-1 | layers 8-9": the chunks of a stage.
std::string describe_stage(const PipelineLayout& layout, int stage);

/// Who has what and runs what when, as comments of a deck. First what each stage has and how many
/// (micro-batch, chunk) pairs it holds at most; then a table with a row for each stage and a column
/// for each slot of time. A piece of work takes one slot, and a stage begins it, in its order, once
/// its inputs are there. Of many slots the first 40 are shown, of more than 32 stages those at both
/// ends. `shape` has no fault and as many stages and chunks as `layout`.
std::string schedule_report(const PipelineShape& shape, const PipelineLayout& layout);

}  // namespace konclave
