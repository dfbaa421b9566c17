#pragma once

#include "layers/attention_core.hpp"
#include "ops/attention.hpp"

#include <memory>

/// The kinds of AttentionCore, each in the file of its name; see make_attention_core.
namespace konclave {

std::unique_ptr<const AttentionCore> make_local_attention(const AttentionShape& shape);
std::unique_ptr<const AttentionCore> make_ring_attention(const AttentionShape& shape,
                                                         Groups::Group cp);
std::unique_ptr<const AttentionCore> make_gathered_attention(const AttentionShape& shape,
                                                             Groups::Group cp);
std::unique_ptr<const AttentionCore> make_head_exchange_attention(const AttentionShape& shape,
                                                                  Groups::Group cp);

}  // namespace konclave
