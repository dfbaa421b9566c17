#pragma once

#include "base/file.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace konclave {

/// A name and what it is now.
using Scalar = std::pair<std::string, double>;

/// Event messages of TensorBoard, as its file holds them: protobuf, framed as TFRecords (length,
/// masked CRC-32C of the length, message, masked CRC-32C of the message; all little endian).
/// `seconds` are those since 1970.
std::string version_record(double seconds);
/// Tells the reader that a process begins with `step`: what earlier files have of this and later
/// steps is abandoned.
std::string start_record(double seconds, std::int64_t step);
std::string scalars_record(double seconds, std::int64_t step, const std::vector<Scalar>& scalars);

/// Writes scalars to a new file FOLDER/events.out.tfevents.* that TensorBoard reads behind those
/// that are there already. Throws Error(io).
class TensorboardWriter {
 public:
  /// Of a process whose first step is `step`.
  TensorboardWriter(const std::filesystem::path& folder, std::int64_t step);

  const std::filesystem::path& path() const { return file_.path(); }
  /// Hands the scalars of a step to the system.
  void write(std::int64_t step, const std::vector<Scalar>& scalars);

 private:
  void append(std::string_view record);

  File file_;
  std::int64_t size_ = 0;
};

}  // namespace konclave
