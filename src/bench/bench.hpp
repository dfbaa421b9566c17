#pragma once

#include "bench/report.hpp"
#include "bench/settings.hpp"
#include "comm/communicator.hpp"
#include "ops/op_table.hpp"

#include <functional>
#include <vector>

namespace konclave {

/// Runs the benchmarks that were asked for, one after the other; each report is shown when it is
/// there. Collective. Throws Error(usage) and DeckError for settings that make no sense, on all
/// ranks together. Gives back everything as one object: the machine, and a list of what json_of
/// says of each.
nlohmann::json bench(const Communicator& world, const BenchSettings& settings,
                     const OpTable& backends, const std::function<void(const BenchReport&)>& show);

}  // namespace konclave
