// Packed copies of a tensor's memory, in the order in which a kernel reads it fastest: made on first use, kept with the
// tensor's storage, dropped when that is written or freed. They are never saved, and count as allocated memory.
#pragma once

#include <string_view>

#include "base/function_ref.h"
#include "core/tensor.h"

namespace deepseek {

// A copy; whoever holds one may read it, even when the storage has dropped it.
class Packed : public Counted {
 public:
  explicit Packed(size_t bytes) : buffer_(bytes), bytes_(bytes) {}
  template <class T>
  T* as() const {
    return buffer_.as<T>();
  }
  size_t bytes() const { return bytes_; }

 private:
  Buffer buffer_;
  size_t bytes_;
};

// What a copy is: `layout` (a literal that names the kernel) with its `variant`.
struct PackedLayout {
  std::string_view layout;
  uint64_t variant = 0;
};

// The copy of `sources` in this layout; `make` makes it when there is none that still holds. It is kept with the
// storage of the first source (the large one), and keeps the memory of the others (scales, zero points) alive, whose
// versions count as well; undefined sources are allowed. Memory that the outside may write unseen (see Storage::expose)
// is packed anew on every call. Threads may call at once: two that find nothing both make one, and the first is kept.
Ref<Packed> packed(Inputs sources, const PackedLayout& layout, FunctionRef<Ref<Packed>()> make);

// Frees what is kept with this tensor's storage and no longer holds; without it that waits for the next copy.
void drop_outdated_packed(const Tensor& t);

// Bytes of the copies kept with this tensor's storage.
size_t packed_bytes(const Tensor& t);

}  // namespace deepseek
