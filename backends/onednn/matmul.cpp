#include "onednn/matmul.hpp"

#include <dnnl.hpp>

#include <compare>
#include <map>

namespace konclave::onednn {

namespace {

using dnnl::memory;

/// What a primitive is made for.
struct Key {
  std::int64_t m, n, k;
  DType type, result;
  bool transpose_a, transpose_b, accumulate;

  auto operator<=>(const Key&) const = default;
};

Key key_of(const ops::Product& product) {
  return {product.c.extent(0), product.c.extent(1), product.inner(),     product.a.type(),
          product.c.type(),    product.transpose_a, product.transpose_b, product.accumulate};
}

/// A (rows, columns) factor, stored as it is or transposed.
memory::desc describe(DType type, std::int64_t rows, std::int64_t columns, bool transposed) {
  const auto data_type = type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  return {{rows, columns}, data_type, transposed ? memory::format_tag::ba : memory::format_tag::ab};
}

/// oneDNN 2 makes a primitive from a descriptor of the operation, oneDNN 3 from its arguments.
template <typename Matmul>
Matmul make_matmul(const dnnl::engine& engine, const memory::desc& a, const memory::desc& b,
                   const memory::desc& c, const dnnl::primitive_attr& attributes) {
  using Description = typename Matmul::primitive_desc;
  if constexpr (requires { typename Matmul::desc; }) {
    return Matmul(Description(typename Matmul::desc(a, b, c), attributes, engine));
  } else {
    return Matmul(Description(engine, a, b, c, attributes));
  }
}

struct Primitive {
  memory::desc a, b, c;
  dnnl::matmul run;
};

Primitive make(const dnnl::engine& engine, const Key& key) {
  const memory::desc a = describe(key.type, key.m, key.k, key.transpose_a);
  const memory::desc b = describe(key.type, key.k, key.n, key.transpose_b);
  const memory::desc c = describe(key.result, key.m, key.n, false);
  dnnl::primitive_attr attributes;
  if (key.accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0F);
    attributes.set_post_ops(add);
  }
  return {a, b, c, make_matmul<dnnl::matmul>(engine, a, b, c, attributes)};
}

/// The primitives made so far, with the engine and the stream that they run on.
class Primitives {
 public:
  const Primitive& get(const Key& key) {
    if (const auto found = made_.find(key); found != made_.end()) return found->second;
    if (made_.size() == kMost) made_.clear();
    return made_.emplace(key, make(engine_, key)).first->second;
  }

  void run(const Primitive& primitive, const ops::Product& product) {
    const auto bind = [&](const memory::desc& desc, const void* data) {
      return memory(desc, engine_, const_cast<void*>(data));
    };
    primitive.run.execute(stream_, {{DNNL_ARG_SRC, bind(primitive.a, product.a.data())},
                                    {DNNL_ARG_WEIGHTS, bind(primitive.b, product.b.data())},
                                    {DNNL_ARG_DST, bind(primitive.c, product.c.data())}});
    stream_.wait();
  }

 private:
  /// An upper limit to what primitives may hold; a model has far fewer shapes.
  static constexpr std::size_t kMost = 4096;

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<Key, Primitive> made_;
};

}  // namespace

bool has_bf16_products() {
  // Each instruction set's value has the bits of those that it includes.
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  constexpr auto kWanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  return (isa & kWanted) == kWanted;
}

void matmul(const ops::Product& product) {
  // A cache of generated code, which no result depends on; one for each thread needs no lock.
  thread_local Primitives primitives;
  primitives.run(primitives.get(key_of(product)), product);
}

}  // namespace konclave::onednn
