#include "layers/attention_ring.hpp"

#include "ops/elementwise.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

KeyValuePair<AnyView> make_pair_like(Arena& arena, DType type, const KeyValuePair<AnyIn>& like) {
  return {arena.make(type, like.k.extent(0), like.k.extent(1)),
          arena.make(type, like.v.extent(0), like.v.extent(1))};
}

void wait_all(const ExecSpace& exec, std::vector<Request>& requests) {
  for (Request& request : requests) request.wait(exec);
  requests.clear();
}

void poll_all(std::vector<Request>& requests) {
  for (Request& request : requests) request.poll();
}

}  // namespace

void AttentionRing::start_receive(const ExecSpace& exec, const KeyValuePair<AnyView>& pair,
                                  int channel, std::vector<Request>& requests) const {
  const int from = (group_.rank() + ranks() - 1) % ranks();
  requests.push_back(group_.start_receive(exec, pair.k, from, channel));
  requests.push_back(group_.start_receive(exec, pair.v, from, channel + 1));
}

void AttentionRing::start_send(const ExecSpace& exec, const KeyValuePair<AnyIn>& pair, int channel,
                               std::vector<Request>& requests) const {
  const int to = (group_.rank() + 1) % ranks();
  requests.push_back(group_.start_send(exec, pair.k, to, channel));
  requests.push_back(group_.start_send(exec, pair.v, to, channel + 1));
}

KeysOnTheWay::KeysOnTheWay(const Context& context, const AttentionRing& ring,
                           const KeyValuePair<AnyIn>& own)
    : exec_(context.exec), ring_(ring), here_(own) {
  for (int i = 0; i < std::min(2, ring.ranks() - 1); ++i) {
    buffers_.push_back(make_pair_like(context.scratch, own.k.type(), own));
  }
}

void KeysOnTheWay::start_turn() {
  if (step_ + 1 == ring_.ranks()) return;
  ring_.start_receive(exec_, next(), AttentionRing::kKeys, requests_);
  ring_.start_send(exec_, here_, AttentionRing::kKeys, requests_);
}

void KeysOnTheWay::finish_turn() {
  if (requests_.empty()) return;
  wait_all(exec_, requests_);
  here_ = {next().k, next().v};
  ++step_;
}

void KeysOnTheWay::poll() { poll_all(requests_); }

GradientsOnTheWay::GradientsOnTheWay(const Context& context, const AttentionRing& ring,
                                     const KeyValuePair<AnyIn>& keys)
    : exec_(context.exec),
      ring_(ring),
      here_(make_pair_like(context.scratch, accum_type(keys.k.type()), keys)),
      next_(make_pair_like(context.scratch, accum_type(keys.k.type()), keys)) {
  ops::fill_zero(exec_, here_.k);
  ops::fill_zero(exec_, here_.v);
}

void GradientsOnTheWay::add(const AnyIn& dk, const AnyIn& dv) const {
  accumulate(exec_, dk, here_.k);
  accumulate(exec_, dv, here_.v);
}

void GradientsOnTheWay::send() {
  ring_.start_send(exec_, {here_.k, here_.v}, AttentionRing::kGradients, leaving_);
}

void GradientsOnTheWay::start_arrival() {
  ring_.start_receive(exec_, next_, AttentionRing::kGradients, arriving_);
}

void GradientsOnTheWay::finish_arrival() {
  wait_all(exec_, arriving_);
  wait_all(exec_, leaving_);
  std::swap(here_, next_);
}

void GradientsOnTheWay::poll() {
  poll_all(arriving_);
  poll_all(leaving_);
}

void accumulate(const ExecSpace& exec, const AnyIn& x, const AnyView& sum) {
  ops::accumulate_rows(exec, x.reshape(1, x.size()),
                       {sum.type(), sum.data(), {sum.size(), 1, 1}, 1});
}

}  // namespace konclave
