#include "checkpoints/inspect.hpp"

#include "base/text.hpp"
#include "checkpoints/format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>

namespace konclave {

namespace {

struct Total {
  std::int64_t tensors = 0, elements = 0, bytes = 0;
};

/// "optimizer/exp_avg" of "optimizer/exp_avg/model.norm.weight".
std::string group_of(const std::string& name) { return name.substr(0, name.rfind('/')); }

}  // namespace

std::string inspect(const Checkpoint& checkpoint) {
  const Manifest& manifest = checkpoint.manifest();
  std::string text = fmt::format("checkpoint  {}\nformat      {}\nstep        {}\n\n",
                                 checkpoint.folder().string(), kCheckpointFormat, manifest.step);
  for (const FileInfo& file : manifest.files) {
    text += fmt::format("{:<16}  {:>10}  {}\n", file.name, format_bytes(file.bytes), file.digest);
  }
  std::size_t name_width = 0, shape_width = 0;
  for (const TensorInfo& tensor : manifest.tensors) {
    name_width = std::max(name_width, tensor.name.size());
    shape_width = std::max(shape_width, tensor.shape_text().size());
  }
  std::map<std::string, Total> totals;
  text += "\n";
  for (const TensorInfo& tensor : manifest.tensors) {
    text += fmt::format("{:<{}}  {:<8}  {:<{}}  {:>10}\n", tensor.name, name_width,
                        stored_name(tensor.type), tensor.shape_text(), shape_width,
                        format_bytes(tensor.bytes()));
    Total& total = totals[group_of(tensor.name)];
    total.tensors += 1;
    total.elements += tensor.elements();
    total.bytes += tensor.bytes();
  }
  text += "\n";
  for (const auto& [group, total] : totals) {
    text += fmt::format("{:<20}  {:>6} tensors  {:>16} elements  {:>10}\n", group, total.tensors,
                        total.elements, format_bytes(total.bytes));
  }
  return text;
}

}  // namespace konclave
