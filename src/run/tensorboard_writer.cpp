#include "run/tensorboard_writer.hpp"

#include "run/crc32c.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <chrono>

namespace konclave {

namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";

/// Fields of TensorBoard's messages, by the numbers of event.proto and summary.proto.
enum EventField : std::uint32_t {
  kWallTime = 1,
  kStep = 2,
  kFileVersion = 3,
  kSummary = 5,
  kSessionLog = 7
};
constexpr std::uint32_t kSummaryValue = 1;
enum ValueField : std::uint32_t { kTag = 1, kSimpleValue = 2 };
constexpr std::uint32_t kSessionStatus = 1, kSessionStart = 1;

/// How protobuf writes a field.
enum WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kDelimited = 2, kFixed32 = 5 };

void add_varint(std::string& message, std::uint64_t number) {
  for (; number >= 0x80; number >>= 7) message += static_cast<char>((number & 0x7F) | 0x80);
  message += static_cast<char>(number);
}

template <typename Unsigned> void add_fixed(std::string& message, Unsigned number) {
  for (std::size_t byte = 0; byte < sizeof number; ++byte) {
    message += static_cast<char>(number >> (8 * byte) & 0xFF);
  }
}

void add_key(std::string& message, std::uint32_t field, WireType type) {
  add_varint(message, field << 3 | type);
}

void add_integer(std::string& message, std::uint32_t field, std::int64_t number) {
  add_key(message, field, kVarint);
  add_varint(message, static_cast<std::uint64_t>(number));
}

void add_double(std::string& message, std::uint32_t field, double number) {
  add_key(message, field, kFixed64);
  add_fixed(message, std::bit_cast<std::uint64_t>(number));
}

void add_float(std::string& message, std::uint32_t field, double number) {
  add_key(message, field, kFixed32);
  add_fixed(message, std::bit_cast<std::uint32_t>(static_cast<float>(number)));
}

/// A string or a message.
void add_bytes(std::string& message, std::uint32_t field, std::string_view bytes) {
  add_key(message, field, kDelimited);
  add_varint(message, bytes.size());
  message += bytes;
}

/// So that a file that holds checksums does not confuse theirs.
std::uint32_t masked_checksum(std::string_view bytes) {
  const std::uint32_t sum = crc32c(bytes);
  return std::rotr(sum, 15) + 0xA282EAD8;
}

std::string framed(std::string_view message) {
  std::string record;
  add_fixed(record, static_cast<std::uint64_t>(message.size()));
  add_fixed(record, masked_checksum(record));
  record += message;
  add_fixed(record, masked_checksum(message));
  return record;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Readers take files in the order of names, which begin with a time: later than that of all that
/// are there, whatever the clock says.
std::filesystem::path next_file(const std::filesystem::path& folder) {
  auto seconds = static_cast<std::int64_t>(now());
  for (const std::string& name : list_folder(folder)) {
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t other = 0;
    const char* const begin = name.data() + kPrefix.size();
    if (std::from_chars(begin, name.data() + name.size(), other).ec == std::errc()) {
      seconds = std::max(seconds, other + 1);
    }
  }
  return folder / (std::string(kPrefix) + std::to_string(seconds) + "." + process_label());
}

}  // namespace

std::string version_record(double seconds) {
  std::string event;
  add_double(event, kWallTime, seconds);
  add_bytes(event, kFileVersion, "brain.Event:2");
  return framed(event);
}

std::string start_record(double seconds, std::int64_t step) {
  std::string session, event;
  add_integer(session, kSessionStatus, kSessionStart);
  add_double(event, kWallTime, seconds);
  add_integer(event, kStep, step);
  add_bytes(event, kSessionLog, session);
  return framed(event);
}

std::string scalars_record(double seconds, std::int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary, event;
  for (const auto& [name, number] : scalars) {
    std::string value;
    add_bytes(value, kTag, name);
    add_float(value, kSimpleValue, number);
    add_bytes(summary, kSummaryValue, value);
  }
  add_double(event, kWallTime, seconds);
  add_integer(event, kStep, step);
  add_bytes(event, kSummary, summary);
  return framed(event);
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder, std::int64_t step)
    : file_(File::create(next_file(folder))) {
  append(version_record(now()));
  append(start_record(now(), step));
}

void TensorboardWriter::write(std::int64_t step, const std::vector<Scalar>& scalars) {
  append(scalars_record(now(), step, scalars));
}

void TensorboardWriter::append(std::string_view record) {
  file_.write(size_, record.data(), record.size());
  size_ += static_cast<std::int64_t>(record.size());
}

}  // namespace konclave
