// A block of rows against the keys of its key head, and how threads share blocks and chunks of keys. Included once per
// SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BLOCK_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BLOCK_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BLOCK_INL_H_
#endif

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/attention/attention_mask-inl.h"
#include "kernels/attention/attention_packed.h"
#include "kernels/attention/attention_softmax-inl.h"
#include "kernels/attention/attention_units.h"
#include "kernels/attention/products/attention_few_rows.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kBlockRows = 128;  // rows that share a tile of keys while it is in the cache

// One thread's block of rows of one key head. Products give a tile's scores and add its values up:
//   Products(a, s, rows)                    for blocks of so many rows
//   begin(b, key_head, first, count)        takes up rows
//   take_keys(key, n)                       takes up a tile
//   scores(panel, n, to)                    [n][panel_rows()] of a panel of the rows
//   factors()                               what the keys' weights are multiplied by behind the sum, or null
//   values(panel, n, weights, keep, to, fresh)
template <class Products>
class ForwardBlock {
  using E = typename Products::Element;

 public:
  ForwardBlock(const Attention& a, const AttentionShape& s, int64_t max_rows)
      : a_(a),
        s_(s),
        rows_(round_up(max_rows, panel_rows())),
        panels_(static_cast<size_t>(rows_ / panel_rows())),
        width_(round_up(s.dv, lanes())),
        mask_(a, s),
        products_(a, s, rows_),
        scores_(static_cast<size_t>(kKeyTile * panel_rows() + panel_rows()) * 4),
        sums_(static_cast<size_t>(2 * RowSums::floats(rows_, width_)) * 4),
        positions_(static_cast<size_t>(rows_) * 4),
        part_(sums_.as<float>(), rows_),
        total_(sums_.as<float>() + RowSums::floats(rows_, width_), rows_),
        merged_(panels_),
        fresh_(panels_) {
    std::fill_n(scores_.as<float>(), kKeyTile * panel_rows(), 0.0f);  // lanes without a row stay harmless
  }

  // Takes up rows first.. of a key head.
  void begin(int64_t b, int64_t key_head, int64_t first, int64_t count) {
    b_ = b, head_ = key_head, first_ = first, count_ = count;
    merged_.assign(panels_, false);
    products_.begin(b, key_head, first, count);
    int32_t* position = positions_.as<int32_t>();
    for (int64_t r = 0; r < rows_; ++r) position[r] = static_cast<int32_t>(s_.position(first + std::min(r, count - 1)));
  }

  // A chunk of keys on its own; fresh[panel] stays set where no key takes part.
  void chunk(int64_t index, const RowSums& part, char* fresh) {
    std::fill_n(fresh, panels_, char{1});
    const int64_t end = std::min(s_.keys, (index + 1) * kKeyChunk);
    for (int64_t key = index * kKeyChunk; key < end; key += kKeyTile)
      tile(key, std::min(kKeyTile, end - key), part, fresh);
  }
  void merge(const RowSums& part, const char* fresh) {
    for (int64_t p = 0; p * panel_rows() < count_; ++p) {
      if (fresh[p]) continue;
      Merge(total_, part, p * panel_rows(), rows_of(p), width_, mask_.unit(), !merged_[static_cast<size_t>(p)]);
      merged_[static_cast<size_t>(p)] = true;
    }
  }
  // All chunks one after another.
  void run() {
    const int64_t begin = s_.first_key(s_.position(first_)), end = s_.end_key(s_.position(first_ + count_ - 1));
    for (int64_t c = begin / kKeyChunk; c * kKeyChunk < end; ++c) {
      chunk(c, part_, fresh_.data());
      merge(part_, fresh_.data());
    }
  }

  void finish(const View& out, const LogSums& logs) {
    const RowWalk to(out);
    const float unit = mask_.unit();
    for (int64_t r = 0; r < count_; ++r) {
      const int64_t row = first_ + r, head = head_ * s_.group + row % s_.group;
      const bool any = merged_[static_cast<size_t>(r / panel_rows())];
      float top = any ? total_.top[r] : -kInf, sum = any ? total_.sum[r] : 0, keep = 1;
      if (a_.sinks.data) {
        const float sink = a_.sinks.as<float>()[head] * (kLog2e / unit), both = std::max(top, sink),
                    shift = both == -kInf ? 0 : both;
        keep = Exp2Of((top - shift) * unit);
        sum = sum * keep + Exp2Of((sink - shift) * unit);
        top = both;
      }
      float* values = total_.values + r * width_;
      if (!any) std::fill_n(values, width_, 0.0f);  // a sink alone
      FinishRow(values, width_, s_.dv, sum, keep / sum, out.as<E>() + to.at(s_, b_, head_, row));
      logs.put((b_ * s_.heads + head) * s_.queries + row / s_.group, top, sum, unit);
    }
  }
  Products& products() { return products_; }

 private:
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), count_ - p * panel_rows()); }

  void tile(int64_t key, int64_t n, const RowSums& part, char* fresh) {
    bool taken = false;
    for (int64_t p = 0; p * panel_rows() < count_; ++p) {
      const int64_t r0 = p * panel_rows(), rows = rows_of(p), vecs = (rows + lanes() - 1) / lanes();
      const int32_t* at = positions_.as<int32_t>() + r0;
      if (!s_.any(at[0], at[rows - 1], key, key + n - 1)) continue;
      if (!taken) products_.take_keys(key, n);
      taken = true;
      float *scores = scores_.as<float>(), *keep = scores + kKeyTile * panel_rows();
      products_.scores(p, n, scores);
      const TileAt t{b_, head_, first_ + r0, rows, key, n, at};
      mask_.apply(t, scores, nullptr);
      const WeightFactors factors{a_.dropout_p > 0 ? mask_.kept(t) : nullptr, products_.factors()};
      SoftmaxTile(vecs, scores, n, mask_.unit(), factors, part.top + r0, part.sum + r0, keep, fresh[p]);
      products_.values(p, n, scores, keep, part.values + r0 * width_, fresh[p]);
      fresh[p] = false;
    }
  }

  const Attention& a_;
  const AttentionShape& s_;
  const int64_t rows_;
  const size_t panels_;
  const int64_t width_;
  ScoreMask mask_;
  Products products_;
  Buffer scores_, sums_, positions_;
  const RowSums part_, total_;
  std::vector<char> merged_, fresh_;
  int64_t b_ = 0, head_ = 0, first_ = 0, count_ = 0;
};

// n rows of `size` elements from `first` on, to be asked for.
template <class E>
NearRowsPrefetch RowsAhead(const E* first, int64_t n, int64_t size, int64_t row) {
  return {first, n, size * static_cast<int64_t>(sizeof(E)), row * static_cast<int64_t>(sizeof(E))};
}

struct Blocks {
  int64_t size, count, all;  // rows a block, blocks a key head, blocks in all
  AttentionShape s;
  explicit Blocks(const AttentionShape& shape)
      : size(std::clamp(round_up(shape.rows, panel_rows()), panel_rows(), kBlockRows)),
        count((shape.rows + size - 1) / size),
        all(count * shape.batch * shape.key_heads),
        s(shape) {}

  // Causal blocks cost more the later they are: those come first.
  template <class Block>
  void begin(Block& block, int64_t at) const {
    const int64_t heads = s.batch * s.key_heads, head = at % heads, first = (count - 1 - at / heads) * size;
    block.begin(head / s.key_heads, head % s.key_heads, first, std::min(size, s.rows - first));
  }
  double flops(int64_t keys) const { return 2.0 * static_cast<double>(std::min(size, s.rows) * keys * (s.d + s.dv)); }
};

template <class Products>
void ForwardWhole(const Attention& a, const Blocks& blocks, const View& out, const LogSums& logs) {
  share_units(blocks.all, blocks.flops(blocks.s.keys), [&](std::atomic<int64_t>& next) {
    ForwardBlock<Products> block(a, blocks.s, blocks.size);
    for (int64_t at; (at = next.fetch_add(1)) < blocks.all;) {
      blocks.begin(block, at);
      block.run();
      block.finish(out, logs);
    }
  });
}

// Fewer blocks than threads: the chunks of keys apart, then merged in order.
template <class Products>
void ForwardSplit(const Attention& a, const Blocks& blocks, const View& out, const LogSums& logs) {
  const int64_t chunks = (blocks.s.keys + kKeyChunk - 1) / kKeyChunk, rows = round_up(blocks.size, panel_rows()),
                panels = rows / panel_rows(), floats = RowSums::floats(rows, round_up(blocks.s.dv, lanes()));
  const Buffer sums(static_cast<size_t>(blocks.all * chunks * floats) * 4);
  const Buffer flags(static_cast<size_t>(blocks.all * chunks * panels));
  const auto part = [&](int64_t unit) { return RowSums(sums.as<float>() + unit * floats, rows); };
  share_units(blocks.all * chunks, blocks.flops(kKeyChunk), [&](std::atomic<int64_t>& next) {
    ForwardBlock<Products> block(a, blocks.s, blocks.size);
    for (int64_t unit; (unit = next.fetch_add(1)) < blocks.all * chunks;) {
      blocks.begin(block, unit / chunks);
      block.chunk(unit % chunks, part(unit), flags.as<char>() + unit * panels);
    }
  });
  ForwardBlock<Products> block(a, blocks.s, blocks.size);
  for (int64_t at = 0; at < blocks.all; ++at) {
    blocks.begin(block, at);
    for (int64_t unit = at * chunks; unit < (at + 1) * chunks; ++unit)
      block.merge(part(unit), flags.as<char>() + unit * panels);
    block.finish(out, logs);
  }
}

template <class Products>
void ForwardAs(const Attention& a, const View& out, const LogSums& logs) {
  const Blocks blocks((AttentionShape(a)));
  const bool split = blocks.all < 2 * num_threads() && num_threads() > 1 && blocks.s.keys > kKeyChunk;
  split ? ForwardSplit<Products>(a, blocks, out, logs) : ForwardWhole<Products>(a, blocks, out, logs);
}

// Several calls. Where their blocks are too few for the threads, one after another, so that each may split its keys.
template <class Products>
void ForwardTasks(std::span<const AttentionTask> tasks) {
  std::vector<Blocks> blocks;
  UnitQueue queue;
  for (const AttentionTask& task : tasks) {
    blocks.emplace_back(AttentionShape(task.a));
    queue.add(blocks.back().all, blocks.back().flops(blocks.back().s.keys));
  }
  if (queue.units() < 2 * num_threads() && num_threads() > 1) {
    for (const AttentionTask& task : tasks) ForwardAs<Products>(task.a, task.out, {task.lse, {}});
    return;
  }
  queue.sort();
  share_units(queue.units(), queue.flops_per_unit(), [&](std::atomic<int64_t>& next) {
    std::unique_ptr<ForwardBlock<Products>> block;
    UnitQueue::Place at, before;
    for (int64_t unit; (unit = next.fetch_add(1)) < queue.units(); before = at) {
      at = queue.place(unit);
      const AttentionTask& task = tasks[at.task];
      const Blocks& own = blocks[at.task];
      if (!block || at.task != before.task) block = std::make_unique<ForwardBlock<Products>>(task.a, own.s, own.size);
      own.begin(*block, at.unit);
      block->run();
      block->finish(task.out, {task.lse, {}});
    }
  });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
