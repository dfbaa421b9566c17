#include "train/exchange_queue.hpp"

#include <utility>

namespace konclave {

ExchangeQueue::ExchangeQueue(MemoryAccount& account, std::string label, int at_once)
    : account_(account), label_(std::move(label)), at_once_(at_once) {}

void ExchangeQueue::start_waiting() {
  while (!waiting_.empty() && under_way_.size() < static_cast<std::size_t>(at_once_)) {
    if (idle_memory_.empty()) {
      idle_memory_.push_back(std::make_unique<Arena>(account_, MemoryClass::buffers, label_));
    }
    std::unique_ptr<Arena> memory = std::move(idle_memory_.back());
    idle_memory_.pop_back();
    memory->rewind({});
    Exchange next = std::move(waiting_.front());
    waiting_.pop_front();
    Request request = next.start(*memory);
    under_way_.push_back({std::move(request), std::move(next.finish), std::move(memory)});
  }
}

void ExchangeQueue::poll(const ExecSpace& exec) {
  start_waiting();
  while (!under_way_.empty() && under_way_.front().request.poll()) finish_one(exec);
}

void ExchangeQueue::finish_one(const ExecSpace& exec) {
  start_waiting();
  if (under_way_.empty()) return;
  UnderWay oldest = std::move(under_way_.front());
  under_way_.pop_front();
  oldest.request.wait(exec);
  oldest.finish();
  idle_memory_.push_back(std::move(oldest.memory));
  start_waiting();
}

void ExchangeQueue::finish(const ExecSpace& exec) {
  while (!empty()) finish_one(exec);
}

}  // namespace konclave
