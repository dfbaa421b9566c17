#include "base/file.hpp"
#include "run/crc32c.hpp"
#include "run/tensorboard_writer.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

namespace konclave {
namespace {

/// Bit by bit, as the polynomial is defined.
std::uint32_t slow_crc32c(std::string_view bytes) {
  std::uint32_t rest = 0xFFFFFFFF;
  for (const char byte : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      const bool differs = (rest & 1) != (static_cast<unsigned char>(byte) >> bit & 1);
      rest = (rest >> 1) ^ (differs ? 0x82F63B78 : 0);
    }
  }
  return ~rest;
}

TEST(Crc32c, HasTheValuesOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AA);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43);
  std::string rising;
  for (char byte = 0; byte < 32; ++byte) rising += byte;
  EXPECT_EQ(crc32c(rising), 0x46DD794E);
  EXPECT_EQ(crc32c(rising), slow_crc32c(rising));
}

/// Takes records and messages apart again, by the formats' definitions.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : rest_(bytes) {}

  bool done() const { return rest_.empty(); }
  template <typename T> T fixed() {
    T number;
    std::memcpy(&number, take(sizeof number).data(), sizeof number);
    return number;
  }
  std::uint64_t varint() {
    std::uint64_t number = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      number |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return number;
    }
  }
  std::string_view delimited() { return take(varint()); }
  /// The message of the next record.
  std::string_view record() {
    const std::string_view length = rest_.substr(0, 8);
    const auto size = fixed<std::uint64_t>();
    EXPECT_EQ(fixed<std::uint32_t>(), masked(length));
    const std::string_view message = take(size);
    EXPECT_EQ(fixed<std::uint32_t>(), masked(message));
    return message;
  }

 private:
  static std::uint32_t masked(std::string_view bytes) {
    const std::uint32_t sum = slow_crc32c(bytes);
    return ((sum >> 15) | (sum << 17)) + 0xA282EAD8;
  }
  std::string_view take(std::size_t count) {
    if (count > rest_.size()) throw std::out_of_range("the message ends early");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_;
};

struct Event {
  double seconds = 0;
  std::int64_t step = 0;
  std::string version;
  bool starts = false;
  std::vector<std::pair<std::string, float>> scalars;
};

std::pair<std::string, float> decode_value(std::string_view bytes) {
  std::pair<std::string, float> result;
  Decoder value(bytes);
  EXPECT_EQ(value.varint(), 1 << 3 | 2);
  result.first = value.delimited();
  EXPECT_EQ(value.varint(), 2 << 3 | 5);
  result.second = value.fixed<float>();
  EXPECT_TRUE(value.done());
  return result;
}

Event decode_event(std::string_view message) {
  Event event;
  Decoder decoder(message);
  while (!decoder.done()) {
    switch (decoder.varint()) {
      case 1 << 3 | 1:
        event.seconds = decoder.fixed<double>();
        break;
      case 2 << 3 | 0:
        event.step = static_cast<std::int64_t>(decoder.varint());
        break;
      case 3 << 3 | 2:
        event.version = decoder.delimited();
        break;
      case 5 << 3 | 2: {
        Decoder summary(decoder.delimited());
        while (!summary.done()) {
          EXPECT_EQ(summary.varint(), 1 << 3 | 2);
          event.scalars.push_back(decode_value(summary.delimited()));
        }
        break;
      }
      case 7 << 3 | 2:
        event.starts = decoder.delimited() == std::string_view("\x08\x01", 2);
        break;
      default:
        ADD_FAILURE() << "a field that is none of an event";
        return event;
    }
  }
  return event;
}

std::vector<Event> decode(std::string_view bytes) {
  std::vector<Event> events;
  for (Decoder decoder(bytes); !decoder.done();) events.push_back(decode_event(decoder.record()));
  return events;
}

TEST(TensorboardRecords, AreDecodedAgain) {
  const std::int64_t step = 123456789012;
  const std::string bytes = version_record(1.5) + start_record(2.5, 8) +
                            scalars_record(3.5, step, {{"loss", 2.25}, {"layer_03/x", -1e-3}});
  const std::vector<Event> events = decode(bytes);
  ASSERT_EQ(events.size(), 3);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_EQ(events[0].seconds, 1.5);
  EXPECT_TRUE(events[1].starts);
  EXPECT_EQ(events[1].step, 8);
  EXPECT_EQ(events[2].step, step);
  EXPECT_EQ(events[2].seconds, 3.5);
  EXPECT_THAT(events[2].scalars, testing::ElementsAre(testing::Pair("loss", 2.25F),
                                                      testing::Pair("layer_03/x", -1e-3F)));
}

/// tests/oracle/check_tensorboard.py has had this file read by TensorBoard.
TEST(TensorboardRecords, HaveTheBytesThatTensorboardReads) {
  std::string bytes = version_record(1700000000) + start_record(1700000000, 1);
  for (std::int64_t step = 1; step <= 3; ++step) {
    bytes += scalars_record(1700000000 + static_cast<double>(step), step,
                            {{"loss", 3 - 0.5 * static_cast<double>(step)}, {"lr", 1e-3}});
  }
  bytes += start_record(1700000010, 3) +
           scalars_record(1700000011, 3, {{"loss", 1.25}, {"layer_01/entropy", 0.5}});
  const std::string expected =
      std::string(KONCLAVE_SOURCE_DIR) + "/tests/oracle/data/tensorboard/events.out.tfevents.1";
  EXPECT_TRUE(bytes == read_text(expected)) << bytes.size() << " bytes";
}

TEST(TensorboardWriter, BeginsAFileBehindTheOthers) {
  const TemporaryFolder folder;
  TensorboardWriter one(folder.path("."), 1);
  one.write(1, {{"loss", 3}});
  one.write(2, {{"loss", 2}});
  TensorboardWriter two(folder.path("."), 2);
  two.write(2, {{"loss", 1}});
  EXPECT_LT(one.path().filename(), two.path().filename());
  folder.write("events.out.tfevents.9999999999.other", "");
  const TensorboardWriter three(folder.path("."), 3);
  EXPECT_EQ(three.path().filename().string().rfind("events.out.tfevents.10000000000.", 0), 0);

  const std::vector<Event> first = decode(read_text(one.path()));
  ASSERT_EQ(first.size(), 4);
  EXPECT_EQ(first[1].step, 1);
  EXPECT_EQ(first[3].scalars.at(0).second, 2);
  const std::vector<Event> second = decode(read_text(two.path()));
  ASSERT_EQ(second.size(), 3);
  EXPECT_TRUE(second[1].starts);
  EXPECT_EQ(second[1].step, 2) << "drops step 2 of the first file";
}

TEST(TensorboardWriter, NeedsAFolder) {
  const TemporaryFolder folder;
  expect_error([&] { TensorboardWriter(folder.path("none"), 1); }, ExitCode::io, {"none/events"});
}

}  // namespace
}  // namespace konclave
