// What the index kernels share: the walk over positions that have an index, and helpers.
#pragma once

#include <cstring>

#include "base/view.h"
#include "kernels/loops/iter.h"
#include "kernels/loops/words.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {

// Reads int64 or int32 indices.
struct IndexReader {
  const void* data;
  bool wide;
  explicit IndexReader(const View& v) : data(v.data), wide(v.dtype == DType::kInt64) {
    DS_CHECK(wide || v.dtype == DType::kInt32, "index kernels take int64 or int32 indices, got ", v.dtype);
  }
  int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

// Merges neighbouring dimensions without changing the order of elements; leaves at least one dimension.
template <int kMax>
void merge_in_order(Loop<kMax>& loop) {
  const auto erase = [&](int d) {
    loop.sizes.erase(d);
    for (int k = 0; k < loop.operands; ++k) loop.strides[k].erase(d);
  };
  for (int d = loop.sizes.size() - 1; d >= 0; --d)
    if (loop.sizes[d] == 1) erase(d);
  for (int d = loop.sizes.size() - 2; d >= 0; --d) {
    bool merge = true;
    for (int k = 0; k < loop.operands; ++k) merge &= loop.strides[k][d] == loop.strides[k][d + 1] * loop.sizes[d + 1];
    if (!merge) continue;
    loop.sizes[d + 1] *= loop.sizes[d];
    erase(d);
  }
  if (!loop.sizes.empty()) return;
  loop.sizes.push_back(1);
  for (int k = 0; k < loop.operands; ++k) loop.strides[k].push_back(1);
}

// Positions p of one operand, `flat`. Each has an index and meets the element of the other, `table`, at
//   sum over d of p[d] * table.strides[d], + index[p] * step.
// The table's strides are 0 on dims that the index stands for; index and table have flat's sizes.
struct IndexWalk {
  Loop<3> loop;  // flat, index, table
  bool wide;     // int64 indices, not int32
  int64_t step;
  int64_t size;  // how many values an index may have
  bool wraps;    // negative ones count from the end

  IndexWalk(const View& flat, const View& index, const View& table, int64_t step, int64_t size, bool wraps)
      : wide(IndexReader(index).wide), step(step), size(size), wraps(wraps) {
    for (const View& v : {flat, index, table}) loop.add(v);
  }

  // Positions in any order: move(table element, flat element), and move.row(table, flat, n) for n neighbours of both.
  template <class T, class Move>
  void read(Move move) {
    loop.collapse();
    parallel_for(loop.numel(), grain_for(2 * sizeof(T) + 8), [&](int64_t begin, int64_t end) {
      with_ids([&]<class Id>() {
        loop.for_range(begin, end, [&](const auto& p, int64_t n) { segment<T, Id>(p, n, move, EveryIndex{}); });
      });
    });
  }

  // Positions that may meet the same element come in their order, those of the last dim first.
  template <class T, class Move>
  void write(Move move) {
    normalize_for_writes();
    const int free = free_dim();
    const int64_t threads = num_threads(), n = loop.numel(), grain = grain_for(2 * sizeof(T) + 8);
    if (n == 0) return;
    if (n <= limited_grain(grain) || threads == 1) return write_all<T>(loop, move, EveryIndex{});
    const bool breaks_runs = free == loop.sizes.size() - 1;
    if (free >= 0 && loop.sizes[free] >= (breaks_runs ? kLongRun : 2) * threads) return write_cut<T>(free, grain, move);
    if (threads < kFewestOwners) return write_all<T>(loop, move, EveryIndex{});
    const int64_t owners = std::min({threads, size, n / limited_grain(grain) + 1});
    parallel_for(owners, 1, [&](int64_t begin, int64_t end) {
      write_all<T>(loop, move, OwnIndices{size * begin / owners, size * end / owners});
    });
  }

 private:
  static constexpr int64_t kLongRun = 16;      // elements: shorter ones cost more than a thread saves
  static constexpr int64_t kFewestOwners = 4;  // threads: each looks at all indices, which two do not make up for

  // Which indices a thread is for.
  struct EveryIndex {
    static constexpr bool kAll = true;
    bool operator()(int64_t) const { return true; }
  };
  struct OwnIndices {
    static constexpr bool kAll = false;
    int64_t begin, end;
    bool operator()(int64_t i) const { return static_cast<uint64_t>(i - begin) < static_cast<uint64_t>(end - begin); }
  };

  template <class F>
  void with_ids(F&& f) const {
    if (wide)
      f.template operator()<int64_t>();
    else
      f.template operator()<int32_t>();
  }

  // Dims that the index stands for keep their order; with one of them, any order of the others keeps it.
  void normalize_for_writes() {
    int indexed = 0;
    for (int d = 0; d < loop.sizes.size(); ++d) indexed += loop.sizes[d] != 1 && loop.strides[2][d] == 0;
    if (indexed <= 1)
      loop.collapse();
    else
      merge_in_order(loop);
  }

  // The longest dim whose positions never meet.
  int free_dim() const {
    int found = -1;
    for (int d = 0; d < loop.sizes.size(); ++d)
      if (loop.strides[2][d] != 0 && (found < 0 || loop.sizes[d] > loop.sizes[found])) found = d;
    return found;
  }

  template <class T, class Move, class Mine>
  void write_all(const Loop<3>& part, Move move, Mine mine) const {
    with_ids([&]<class Id>() {
      part.for_range(0, part.numel(), [&](const auto& p, int64_t n) { segment<T, Id>(p, n, move, mine); });
    });
  }

  template <class T, class Move>
  void write_cut(int dim, int64_t grain, Move move) const {
    const int64_t slice = loop.numel() / loop.sizes[dim];
    parallel_for(loop.sizes[dim], std::max<int64_t>(1, grain / slice), [&](int64_t begin, int64_t end) {
      Loop<3> part = loop;
      part.sizes[dim] = end - begin;
      for (int k = 0; k < 3; ++k) part.data[k] += begin * part.strides[k][dim] * part.item[k];
      write_all<T>(part, move, EveryIndex{});
    });
  }

  // n positions of the last dim.
  template <class T, class Id, class Move, class Mine>
  void segment(const std::array<char*, 3>& p, int64_t n, Move move, Mine mine) const {
    T* const flat = reinterpret_cast<T*>(p[0]);
    const Id* const ids = reinterpret_cast<const Id*>(p[1]);
    T* const table = reinterpret_cast<T*>(p[2]);
    const int64_t flat_step = loop.inner_stride(0), id_step = loop.inner_stride(1), table_step = loop.inner_stride(2);
    const auto wrapped = [this](int64_t id) { return id + (id < 0 ? size : 0); };
    if (id_step == 0) {
      const int64_t id = wrapped(ids[0]);
      if (!mine(id)) return;
      T* const row = table + id * step;
      if (flat_step == 1 && table_step == 1) return move.row(row, flat, n);
      for (int64_t j = 0; j < n; ++j) move(row[j * table_step], flat[j * flat_step]);
    } else if constexpr (!Mine::kAll) {
      constexpr int64_t kBlock = 256;
      int32_t own[kBlock];  // every position is stored, our own are kept: no branch for the processor to guess
      for (int64_t begin = 0; begin < n; begin += kBlock) {
        int64_t count = 0;
        for (int64_t j = begin; j < std::min(n, begin + kBlock); ++j) {
          own[count] = static_cast<int32_t>(j - begin);
          count += mine(wrapped(ids[j * id_step]));
        }
        for (int64_t i = 0; i < count; ++i) {
          const int64_t j = begin + own[i];
          move(table[j * table_step + wrapped(ids[j * id_step]) * step], flat[j * flat_step]);
        }
      }
    } else if (flat_step == 1 && id_step == 1 && table_step == 0) {
      if (!wraps && step == 1)
#pragma GCC unroll 8
        for (int64_t j = 0; j < n; ++j) move(table[ids[j]], flat[j]);
      else
        for (int64_t j = 0; j < n; ++j) move(table[wrapped(ids[j]) * step], flat[j]);
    } else {
      for (int64_t j = 0; j < n; ++j)
        move(table[j * table_step + wrapped(ids[j * id_step]) * step], flat[j * flat_step]);
    }
  }
};

// What a walk does with an element of the table and one of the flat operand.
template <class F>
struct EachElement {
  F f;
  template <class T>
  void operator()(T& table, T& flat) const {
    f(table, flat);
  }
  template <class T>
  void row(T* table, T* flat, int64_t n) const {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) f(table[j], flat[j]);
  }
};
struct TakeFromTable {
  template <class T>
  void operator()(const T& table, T& flat) const {
    flat = table;
  }
  template <class T>
  void row(const T* table, T* flat, int64_t n) const {
    std::memcpy(flat, table, static_cast<size_t>(n) * sizeof(T));
  }
};
struct PutIntoTable {
  template <class T>
  void operator()(T& table, const T& flat) const {
    table = flat;
  }
  template <class T>
  void row(T* table, const T* flat, int64_t n) const {
    std::memmove(table, flat, static_cast<size_t>(n) * sizeof(T));
  }
};

// a + b as PyTorch adds: bool is or, integers wrap, small floats round once.
template <class T>
T add_values(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a || b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  else
    return T(static_cast<ComputeType<T>>(a) + static_cast<ComputeType<T>>(b));
}

template <class T>
T multiply_values(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a && b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  else
    return T(static_cast<ComputeType<T>>(a) * static_cast<ComputeType<T>>(b));
}

}  // namespace deepseek::kernels
