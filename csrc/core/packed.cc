#include "core/packed.h"

#include <algorithm>
#include <mutex>
#include <vector>

namespace deepseek {
namespace {

// The part of memory that was read, at which version.
struct Source {
  Ref<Storage> storage;  // null for the storage that keeps the copy, which must not hold itself
  bool defined = false;
  uint32_t version = 0;
  DType dtype = DType::kFloat32;
  int64_t offset = 0;
  Dims sizes, strides;

  bool operator==(const Source& o) const {
    return storage == o.storage && defined == o.defined && version == o.version && dtype == o.dtype &&
           offset == o.offset && sizes == o.sizes && strides == o.strides;
  }
};

struct Entry {
  std::string_view layout;
  uint64_t variant;
  SmallVector<Source, 3> sources;
  Ref<Packed> copy;

  bool same_place(const Entry& o) const {
    const Source &a = sources[0], &b = o.sources[0];
    return layout == o.layout && variant == o.variant && a.dtype == b.dtype && a.offset == b.offset &&
           a.sizes == b.sizes && a.strides == b.strides;
  }
};

Entry entry_for(Inputs sources, const PackedLayout& layout) {
  Entry e{layout.layout, layout.variant, {}, {}};
  const Ref<Storage>& owner = sources[0].storage();
  for (const Tensor& t : sources) {
    Source& s = e.sources.emplace_back();
    s.defined = t.defined();
    if (!s.defined) continue;
    if (t.storage() != owner) s.storage = t.storage();
    s.version = t.version();
    s.dtype = t.dtype();
    s.offset = t.offset();
    s.sizes = t.sizes();
    s.strides = t.strides();
  }
  return e;
}

}  // namespace

constexpr size_t kMostCopies = 8;  // of one storage: parts of it that are used in turn

// What one storage keeps. The lock is held to look and to put in, never while a copy is made.
class PackedCopies {
 public:
  Ref<Packed> find(const Entry& wanted) {
    const std::lock_guard lock(mutex_);
    for (const Entry& e : entries_)
      if (e.same_place(wanted) && std::ranges::equal(e.sources, wanted.sources)) return e.copy;
    return {};
  }
  // The copy to use: this one, or the one another thread has put in meanwhile.
  Ref<Packed> put(Entry made) {
    std::vector<Entry> outdated;  // freed after the lock
    const std::lock_guard lock(mutex_);
    for (size_t i = entries_.size(); i-- > 0;) {
      Entry& e = entries_[i];
      const bool same = e.same_place(made);
      if (same && std::ranges::equal(e.sources, made.sources)) return e.copy;
      if (!same && e.sources[0].version == made.sources[0].version) continue;
      outdated.push_back(std::move(e));
      entries_.erase(entries_.begin() + static_cast<int64_t>(i));
    }
    if (entries_.size() >= kMostCopies) {
      outdated.push_back(std::move(entries_.front()));
      entries_.erase(entries_.begin());
    }
    return entries_.emplace_back(std::move(made)).copy;
  }
  void drop_outdated(uint32_t version) {
    std::vector<Entry> outdated;  // freed after the lock
    const std::lock_guard lock(mutex_);
    for (size_t i = entries_.size(); i-- > 0;) {
      if (entries_[i].sources[0].version == version) continue;
      outdated.push_back(std::move(entries_[i]));
      entries_.erase(entries_.begin() + static_cast<int64_t>(i));
    }
  }
  size_t bytes() {
    const std::lock_guard lock(mutex_);
    size_t sum = 0;
    for (const Entry& e : entries_) sum += e.copy->bytes();
    return sum;
  }

 private:
  std::mutex mutex_;
  std::vector<Entry> entries_;
};

void destroy_packed(PackedCopies* copies) noexcept { delete copies; }

namespace {

PackedCopies& copies_of(Storage& s) {
  if (PackedCopies* there = s.packed_copies().load(std::memory_order_acquire)) return *there;
  auto* fresh = new PackedCopies;
  PackedCopies* before = nullptr;
  if (s.packed_copies().compare_exchange_strong(before, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *before;
}

}  // namespace

Ref<Packed> packed(Inputs sources, const PackedLayout& layout, FunctionRef<Ref<Packed>()> make) {
  const bool kept =
      std::ranges::none_of(sources, [](const Tensor& t) { return t.defined() && t.storage()->exposed(); });
  Entry entry = entry_for(sources, layout);
  PackedCopies* copies = kept ? &copies_of(*sources[0].storage()) : nullptr;
  if (copies)
    if (Ref<Packed> found = copies->find(entry)) return found;
  entry.copy = make();
  return copies ? copies->put(std::move(entry)) : entry.copy;
}

void drop_outdated_packed(const Tensor& t) {
  if (PackedCopies* copies = t.storage()->packed_copies().load(std::memory_order_acquire))
    copies->drop_outdated(t.version());
}

size_t packed_bytes(const Tensor& t) {
  PackedCopies* copies = t.storage()->packed_copies().load(std::memory_order_acquire);
  return copies ? copies->bytes() : 0;
}

}  // namespace deepseek
