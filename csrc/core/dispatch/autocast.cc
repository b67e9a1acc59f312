#include "core/dispatch/autocast.h"

#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/dispatch/copy_ops.h"
#include "core/packed.h"
#include "kernels/loops/copy.h"

namespace deepseek {
namespace {

struct KeptCast {
  Tensor source;  // keeps its cell, which is the key, from becoming another tensor's
  Tensor cast;
  Ref<Storage> storage;  // the memory that was read: `weight.data = …` exchanges it, and an address comes back
  uint32_t version;
  int64_t offset;
  Dims sizes, strides;

  KeptCast(const Tensor& t, Tensor c)
      : source(t),
        cast(std::move(c)),
        storage(t.storage()),
        version(t.version()),
        offset(t.offset()),
        sizes(t.sizes()),
        strides(t.strides()) {}

  bool is_of(const Tensor& t, DType target) const {
    if (!source.is(t) || cast.dtype() != target) return false;
    if (storage != t.storage() || version != t.version() || offset != t.offset() || sizes != t.sizes() ||
        strides != t.strides())
      return false;
    if (cast.cell()->inference && !mode().inference) return false;               // may not be saved for backward
    if (!cast.requires_grad()) return !(mode().records() && t.requires_grad());  // made where nothing was recorded
    const Edge made_of = cast.edge().node->next[0], now = t.edge();
    return made_of.node == now.node && made_of.index == now.index;
  }
};

struct KeptCasts {
  std::unordered_multimap<const Cell*, KeptCast> weights;
  std::optional<KeptCast> last;  // of anything else: what one layer after another reads (queries, keys, values)
};

// A pointer, so that a thread that ends inside a region runs no destructors of tensors.
thread_local constinit KeptCasts* t_casts = nullptr;
thread_local constinit int t_depth = 0;  // regions around us
thread_local constinit bool t_enabled = true;

// Writes to memory that is known outside go unseen (see Storage::expose): such a weight is cast every time.
bool may_keep(const Tensor& t) { return t_enabled && t_depth > 0 && !t.storage()->exposed(); }

// The cast that is kept of a weight; outdated ones are dropped.
Tensor kept_weight(const Tensor& t, DType target) {
  auto [it, end] = t_casts->weights.equal_range(t.cell());
  while (it != end) {
    if (it->second.is_of(t, target)) return it->second.cast;
    it = it->second.cast.dtype() == target ? t_casts->weights.erase(it) : std::next(it);
  }
  return {};
}

// The cast of a weight where nothing records it: kept with its memory, beyond the region, until that is written. In
// inference with few rows the cast would cost more than the product.
Tensor packed_weight(const Tensor& t, DType target) {
  const Dims strides = preserved_strides(t.sizes(), t.strides());
  const size_t bytes = static_cast<size_t>(t.numel()) * size_of(target);
  const Ref<Packed> copy = packed({&t, 1}, {"autocast", static_cast<uint64_t>(target)}, [&] {
    auto made = make_ref<Packed>(bytes);
    kernels::copy({made->as<char>(), target, t.sizes(), strides}, t.view());
    return made;
  });
  auto* held = new Ref<Packed>(copy);
  const auto release = [](void* context) { delete static_cast<Ref<Packed>*>(context); };
  const Ref<Storage> memory = Storage::external(copy->as<char>(), bytes, release, held);
  memory->set_read_only();
  return Tensor::from_storage(memory, t.sizes(), strides, 0, target);
}

Tensor cast_weight(const Tensor& t, DType target) {
  if (!mode().records() && !mode().recorder && t.numel() > 0) return packed_weight(t, target);
  drop_outdated_packed(t);  // of an evaluation between two steps
  return apply(AutocastLower{target}, t);
}

// A float32 tensor in a lower dtype.
Tensor lowered(const Tensor& t, DType target) {
  if (!may_keep(t)) return apply(AutocastLower{target}, t);
  if (!t_casts) t_casts = new KeptCasts;
  const bool is_weight = t.is_leaf() && t.cell()->requires_grad;
  if (is_weight) {
    if (Tensor kept = kept_weight(t, target); kept.defined()) return kept;
  } else if (t_casts->last && t_casts->last->is_of(t, target)) {
    return t_casts->last->cast;
  }
  Tensor cast = is_weight ? cast_weight(t, target) : apply(AutocastLower{target}, t);
  if (!t_casts) return cast;  // memory was short, and what was run then has cleared it
  if (is_weight) {
    t_casts->weights.emplace(t.cell(), KeptCast(t, cast));
  } else {
    const std::optional<KeptCast> before = std::exchange(t_casts->last, KeptCast(t, cast));  // dies when all is done
  }
  return cast;
}

bool converts(const Tensor& t) {  // float64 stays what it is, as in PyTorch
  return t.defined() && is_floating(t.dtype()) && t.dtype() != DType::kFloat64;
}

DType target_of(const OpInfo& info, Inputs in) {
  if (info.autocast == Autocast::kFloat32) return DType::kFloat32;
  if (info.autocast == Autocast::kLower) return mode().autocast_dtype;
  const Tensor* first = nullptr;
  DType target = DType::kFloat32;
  for (size_t i = 0; i < in.size(); ++i) {
    if (!has_slot(info.cast_inputs, i) || !converts(in[i])) continue;
    target = first ? promote_types(target, in[i].dtype()) : in[i].dtype();
    first = &in[i];
  }
  return target;
}

// `t` in `target`.
Tensor autocast_to(const Tensor& t, DType target) {
  if (t.dtype() == target) return t;
  const bool lowers = t.dtype() == DType::kFloat32 && is_reduced_float(target);
  return lowers ? lowered(t, target) : apply(ToDtype{target}, t);
}

}  // namespace

TensorList autocast_inputs(const OpDef& def, Inputs in) {
  TensorList cast(in);
  if (def.info->autocast == Autocast::kOff) return cast;
  const DType target = target_of(*def.info, in);
  for (size_t i = 0; i < in.size(); ++i)
    if (has_slot(def.info->cast_inputs, i) && converts(in[i])) cast[i] = autocast_to(in[i], target);
  return cast;
}

void enter_autocast_region() { ++t_depth; }
void leave_autocast_region() {
  if (t_depth > 0) --t_depth;
  if (t_depth == 0) clear_autocast_cache();
}
void drop_kept_casts(const Tensor& t) {
  if (!t_casts) return;
  std::optional<KeptCast> last;  // dies when all is done, as do those below
  if (t_casts->last && t_casts->last->source.is(t)) last.swap(t_casts->last);
  std::vector<decltype(t_casts->weights)::node_type> dropped;
  while (auto node = t_casts->weights.extract(t.cell())) dropped.push_back(std::move(node));
}
void clear_autocast_cache() { delete std::exchange(t_casts, nullptr); }
bool autocast_cache_enabled() { return t_enabled; }
void set_autocast_cache_enabled(bool on) { t_enabled = on; }
size_t autocast_cache_size() { return t_casts ? t_casts->weights.size() : 0; }

OwnAutocastCache::OwnAutocastCache() : before_(std::exchange(t_casts, nullptr)) {}
OwnAutocastCache::~OwnAutocastCache() {
  clear_autocast_cache();
  t_casts = static_cast<KeptCasts*>(before_);
}

}  // namespace deepseek
