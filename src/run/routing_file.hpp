#pragma once

#include "run/routing_history.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace konclave {

/// Writes routing.h5 of a run's folder: every step, in batches. Between two of them the file is
/// closed, so that others can read it. A batch is added to a copy, which takes the file's place: a
/// process that is killed leaves the file whole. Only one too large to be copied each time is added
/// to in place. Calls HDF5 on the I/O thread and waits for it.
class RoutingFile {
 public:
  /// Of a model whose MoE layers have these numbers.
  RoutingFile(std::filesystem::path path, std::vector<std::int64_t> layers, std::int64_t experts);

  /// Opens it for a run that goes on after `step`: later steps are dropped. A new file is made
  /// where there is none, and at step 0. One that is damaged or of another model is set aside as
  /// PATH.damaged, and the sentence that says so is given back, else "". Throws Error(io).
  std::string open(std::int64_t step);
  /// Keeps a step in memory for the next flush.
  void add(std::int64_t step, const std::vector<LayerMetrics>& metrics) {
    pending_.add(step, metrics);
  }
  /// What is kept in memory.
  const RoutingHistory& pending() const { return pending_; }
  /// Writes what is kept in memory. Throws Error(io) when that fails: it is still kept then, and
  /// the next call begins where the file was good.
  void flush();

 private:
  /// Has `work` change a copy, or make a new file, and puts it in the file's place.
  void change(const std::function<void(const std::filesystem::path&)>& work) const;
  void create(const std::filesystem::path& path) const;
  /// Drops steps behind `step` and says how many are left; throws Error(input) when the file is
  /// none of this model.
  std::int64_t cut(const std::filesystem::path& path, std::int64_t step) const;
  void append(const std::filesystem::path& path) const;

  std::filesystem::path path_;
  RoutingHistory pending_;
  std::int64_t rows_ = 0;  ///< steps that the file is known to have
};

}  // namespace konclave
