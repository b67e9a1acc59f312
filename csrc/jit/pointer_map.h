// Addresses to numbers, for recordings: nothing is ever removed, so a table with linear probing does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deepseek::jit {

class PointerMap {
 public:
  // Null when the address is unknown.
  const int32_t* find(const void* key) const {
    const Entry& e = table_[place(key)];
    return e.key ? &e.value : nullptr;
  }

  // The number of an address, which becomes `value` where it has none.
  int32_t add(const void* key, int32_t value) {
    size_t at = place(key);
    if (table_[at].key) return table_[at].value;
    if (2 * (count_ + 1) > table_.size()) {
      grow();
      at = place(key);
    }
    table_[at] = {key, value};
    ++count_;
    return value;
  }

  void set(const void* key, int32_t value) {
    if (add(key, value) != value) table_[place(key)].value = value;
  }

 private:
  struct Entry {
    const void* key = nullptr;
    int32_t value = 0;
  };

  // Where the key is, or would go.
  size_t place(const void* key) const {
    const size_t mask = table_.size() - 1;
    // Blocks of the allocator are 64 bytes apart or more; the product's upper bits are well mixed.
    size_t at = (reinterpret_cast<size_t>(key) >> 4) * 0x9e3779b97f4a7c15u >> 40 & mask;
    while (table_[at].key && table_[at].key != key) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<Entry> old(2 * table_.size());
    old.swap(table_);
    for (const Entry& e : old)
      if (e.key) table_[place(e.key)] = e;
  }

  std::vector<Entry> table_ = std::vector<Entry>(256);  // a power of two
  size_t count_ = 0;
};

}  // namespace deepseek::jit
