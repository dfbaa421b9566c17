#pragma once

#include "run/rank_place.hpp"

#include <string>
#include <vector>

namespace konclave {

/// Which rank runs where, as lines for people: a table of the ranks when they are few, of the hosts
/// when they are many, and hosts that look alike in one line when these are many too. Place i is
/// that of rank i; no places, no lines.
std::vector<std::string> hardware_map(const std::vector<RankPlace>& places);

/// What makes ranks or threads wait for each other, as sentences with a remedy: ranks bound to the
/// same cores, more threads on a host than cores, more threads in a rank than it is bound to. A
/// sentence names the first case and counts the others. Ranks that share cores with room for all
/// their threads are well placed. Places whose cores are unknown are left out.
std::vector<std::string> hardware_warnings(const std::vector<RankPlace>& places);

}  // namespace konclave
