#pragma once

#include "checkpoints/reader.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// The checkpoints of one run: the folders step-NNNNNNNN in a folder.

/// Newest first; none where there is no such folder.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& checkpoints);

/// The newest one that is whole in every bit. `report` gets a sentence for each that is passed
/// over, naming what is wrong with it. Throws NewerFormat rather than going back behind one of a
/// later format.
std::optional<Checkpoint> newest_good(const std::filesystem::path& checkpoints,
                                      const std::function<void(const std::string&)>& report);

/// Deletes all but the newest `keep` and, when `keep_every` is not 0, those whose step is a
/// multiple of it. Nothing is deleted unless one of those that stay and are newer is whole.
void remove_old_checkpoints(const std::filesystem::path& checkpoints, std::int64_t keep,
                            std::int64_t keep_every);

/// Clears away what killed processes left. Call it at the start, while holding the run's lock.
void remove_stale_attempts(const std::filesystem::path& checkpoints);

}  // namespace konclave
