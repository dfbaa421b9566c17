#include "tests/unit/checkpoints/sample.hpp"

#include "base/file.hpp"
#include "base/rng.hpp"
#include "base/text.hpp"

#include <cstring>
#include <fstream>

namespace konclave {

std::vector<std::byte> random_bytes(std::string_view purpose, std::int64_t count,
                                    std::uint64_t seed) {
  const RandomStream stream(seed, purpose);
  std::vector<std::byte> bytes;
  for (std::uint64_t word = 0; static_cast<std::int64_t>(bytes.size()) < count; ++word) {
    const std::uint64_t bits = stream.bits(word);
    const auto* const first = reinterpret_cast<const std::byte*>(&bits);
    bytes.insert(bytes.end(), first, first + sizeof bits);
  }
  bytes.resize(static_cast<std::size_t>(count));
  return bytes;
}

std::vector<SampleTensor> sample_tensors(std::uint64_t seed) {
  std::vector<SampleTensor> tensors;
  const auto add = [&](const char* name, DType type, std::vector<std::int64_t> shape) {
    SampleTensor tensor{{name, type, std::move(shape)}, {}};
    tensor.bytes = random_bytes(name, tensor.info.bytes(), seed);
    tensors.push_back(std::move(tensor));
  };
  add("model/large", DType::fp32, {3, 300, 300});
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const std::string name = "model/" + std::string(name_of(type));
    add((name + ".vector").c_str(), type, {7});
    add((name + ".matrix").c_str(), type, {5, 3});
    add((name + ".experts").c_str(), type, {2, 3, 5});
  }
  add("optimizer/exp_avg/one", DType::fp32, {1});
  return tensors;
}

CheckpointContent content_of(std::int64_t step, const std::vector<SampleTensor>& tensors) {
  CheckpointContent content{step,
                            "[run]\nname = \"sample\"\n",
                            {{"step", step}, {"samples", 8 * step}, {"third", 1.0 / 3}},
                            {{"host", "here"}},
                            {}};
  for (const SampleTensor& tensor : tensors) {
    content.tensors.push_back({tensor.info, [&tensor](void* host) {
                                 std::memcpy(host, tensor.bytes.data(), tensor.bytes.size());
                               }});
  }
  return content;
}

std::filesystem::path save_sample(const std::filesystem::path& checkpoints, std::int64_t step) {
  const std::vector<SampleTensor> tensors = sample_tensors(static_cast<std::uint64_t>(step));
  write_checkpoint(checkpoints, content_of(step, tensors));
  return checkpoints / checkpoint_name(step);
}

void flip_bit(const std::filesystem::path& path, std::int64_t byte, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(byte);
  const int value = file.get() ^ (1 << bit);
  file.seekp(byte);
  file.put(static_cast<char>(value));
}

std::string names_in(const std::filesystem::path& folder) { return join(list_folder(folder), " "); }

}  // namespace konclave
