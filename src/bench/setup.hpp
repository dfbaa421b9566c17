#pragma once

#include "bench/settings.hpp"
#include "comm/communicator.hpp"
#include "parallel/groups.hpp"

namespace konclave {

/// What every benchmark is built on. Borrows all but the groups.
struct BenchSetup {
  const Communicator& world;
  const BenchSettings& settings;
  const Deck& deck;
  const OpTable& backends;
  Groups groups;
  ExecSpace exec;

  DType compute() const { return deck.definition.compute; }
  /// A number of this rank, added up over all.
  double sum(double mine) const { return groups.world->sum(mine); }
};

}  // namespace konclave
