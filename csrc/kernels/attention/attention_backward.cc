#include <cmath>
#include <deque>
#include <limits>
#include <memory>

#include "kernels/attention/attention_packed.h"
#include "kernels/attention/attention_turns.h"
#include "kernels/attention/attention_units.h"
#include "kernels/loops/cast.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_backward.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention_backward-inl.h"
#include "kernels/attention/attention_mask-inl.h"
#include "kernels/attention/attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kBlockKeys = 4 * kKeyTile;  // keys that share a panel of queries while it is in the cache

// One thread's block of keys of one key head.
template <class M>
class BackwardBlock {
  using E = typename M::Element;

 public:
  BackwardBlock(const Attention& a, const AttentionShape& s, const GivenGradients& given, const QuerySums& by_queries,
                Turns& turns)
      : a_(a),
        s_(s),
        by_queries_(by_queries),
        turns_(turns),
        mask_(a, s),
        panel_(a, s, given),
        sums_(s, kBlockKeys, kBlockKeys),
        slope_(words(kKeyTile * panel_rows())),
        position_(words(panel_rows())) {}

  void run(int64_t b, int64_t head, int64_t block, const View& dk, const View& dv) {
    const int64_t first = block * kBlockKeys, count = std::min(kBlockKeys, s_.keys - first);
    const E* k = a_.k.template as<E>() + b * a_.k.strides[0] + head * a_.k.strides[1] + first * a_.k.strides[2];
    const E* v = a_.v.template as<E>() + b * a_.v.strides[0] + head * a_.v.strides[1] + first * a_.v.strides[2];
    for (int64_t t = 0; t * kKeyTile < count; ++t) {
      const int64_t n = std::min(kKeyTile, count - t * kKeyTile), row_k = a_.k.strides[2], row_v = a_.v.strides[2];
      const E *kt = k + t * kKeyTile * row_k, *vt = v + t * kKeyTile * row_v;
      tiles_[t] = sums_.take(kt, row_k, vt, row_v, n, t);
    }
    sums_.clear(count);
    for (int64_t panel = 0; panel * panel_rows() < s_.rows; ++panel) rows(b, head, block, panel, first, count);
    sums_.store(dk, dv, b, head, first, count, false);
  }

 private:
  static size_t words(int64_t n) { return static_cast<size_t>(n) * 4; }

  void rows(int64_t b, int64_t head, int64_t block, int64_t panel, int64_t first, int64_t count) {
    const int64_t row0 = panel * panel_rows(), n = std::min(panel_rows(), s_.rows - row0);
    const int64_t lo = s_.position(row0), hi = s_.position(row0 + n - 1), index = b * s_.key_heads + head;
    if (!s_.any(lo, hi, first, first + count - 1)) {
      turns_.wait(index, panel, block);
      turns_.done(index, panel, block);
      return;
    }
    panel_.take(b, head, n, [&](int64_t r) { return row0 + r; });
    auto* position = position_.as<int32_t>();
    for (int64_t r = 0; r < panel_rows(); ++r)
      position[r] = static_cast<int32_t>(s_.position(row0 + std::min(r, n - 1)));
    bool waited = false;
    for (int64_t t = 0; t * kKeyTile < count; ++t) {
      const int64_t key = first + t * kKeyTile, keys = std::min(kKeyTile, first + count - key);
      if (!s_.any(lo, hi, key, key + keys - 1)) continue;
      tile(TileAt{b, head, row0, n, key, keys, position}, t);
      if (!waited) turns_.wait(index, panel, block);
      waited = true;
      sums_.add_to_queries(n, keys, tiles_[t].columns, by_queries_.at(index, row0));
    }
    if (!waited) turns_.wait(index, panel, block);
    turns_.done(index, panel, block);
  }

  void tile(const TileAt& t, int64_t at) {
    const int64_t vecs = (t.rows + lanes() - 1) / lanes();
    const auto& [keys, values, columns] = tiles_[at];
    float *scores = sums_.scores(), *by_scores = sums_.by_scores(),
          *slope = a_.softcap > 0 ? slope_.as<float>() : nullptr;
    M::scores(t.keys, vecs, M::words(s_.d), keys.data, keys.row, panel_.queries(), scores);
    mask_.apply(t, scores, slope);
    M::scores(t.keys, vecs, M::words(s_.dv), values.data, values.row, panel_.grads(), by_scores);
    const float* kept = a_.dropout_p > 0 ? mask_.kept(t) : nullptr;
    WeightGradients(t, mask_.unit(), static_cast<float>(a_.scale), panel_.numbers(), kept, slope, scores, by_scores);
    sums_.add(panel_, t.rows, t.keys, at * kKeyTile);
  }

  const Attention& a_;
  const AttentionShape& s_;
  const QuerySums& by_queries_;
  Turns& turns_;
  ScoreMask mask_;
  RowPanel<M> panel_;
  const KeySums<M> sums_;
  Buffer slope_, position_;
  typename KeySums<M>::Tile tiles_[kBlockKeys / kKeyTile];
};

// What the threads of one task share.
struct BackwardWork {
  const AttentionBackwardTask& task;
  const AttentionShape s;
  const GivenGradients given;
  const int64_t heads, blocks;
  const QuerySums by_queries;
  Turns turns;
  explicit BackwardWork(const AttentionBackwardTask& t)
      : task(t),
        s(t.a),
        given(t.grad_out, t.lse, t.delta, t.lse_low),
        heads(s.batch * s.key_heads),
        blocks((s.keys + kBlockKeys - 1) / kBlockKeys),
        by_queries(s),
        turns(heads, (s.rows + panel_rows() - 1) / panel_rows()) {}
  double flops_per_unit() const {
    return 2.0 * static_cast<double>(s.rows * std::min(s.keys, kBlockKeys) * (3 * s.d + 2 * s.dv));
  }
};

template <class M>
void BackwardTasks(std::span<const AttentionBackwardTask> tasks) {
  std::deque<BackwardWork> works;
  UnitQueue queue;
  for (const AttentionBackwardTask& task : tasks) {
    const BackwardWork& work = works.emplace_back(task);
    queue.add(work.blocks * work.heads, work.flops_per_unit());
  }
  queue.sort();
  share_units(queue.units(), queue.flops_per_unit(), [&](std::atomic<int64_t>& next) {
    std::unique_ptr<BackwardBlock<M>> block;
    UnitQueue::Place at, before;
    // Of a causal mask the first keys cost most. Blocks of one key head are far apart, so that none waits for long; an
    // earlier one never waits for a later one.
    for (int64_t unit; (unit = next.fetch_add(1)) < queue.units(); before = at) {
      at = queue.place(unit);
      BackwardWork& w = works[at.task];
      if (!block || at.task != before.task)
        block = std::make_unique<BackwardBlock<M>>(w.task.a, w.s, w.given, w.by_queries, w.turns);
      block->run(at.unit % w.heads / w.s.key_heads, at.unit % w.heads % w.s.key_heads, at.unit / w.heads, w.task.dk,
                 w.task.dv);
    }
  });
  for (const BackwardWork& w : works) w.by_queries.template store<typename M::Element>(w.task.dq);
}

void AttentionBackward(std::span<const AttentionBackwardTask> tasks, bool bf16_dot) {
  DotsBf16(bf16_dot) ? count_route(Route::kAttentionBackwardBf16Dot) : DS_COUNT_ROUTE(AttentionBackwardFloat);
  ForOperands(tasks[0].a.q.dtype, bf16_dot, [&]<class M>() { BackwardTasks<M>(tasks); });
}

template <class E, class C>
C RowDot(const E* a, const E* b, int64_t n) {
  const Tag<C> d;
  const int64_t step = hn::Lanes(d);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + step <= n; i += step) sum = hn::MulAdd(load_as(d, a + i), load_as(d, b + i), sum);
  C total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += static_cast<C>(a[i]) * static_cast<C>(b[i]);
  return total;
}

template <class E, class C>
void DeltaAs(const View& grad, const View& out, const View& grad_lse, const View& delta) {
  const int64_t heads = out.sizes[1], queries = out.sizes[2], n = out.sizes[3];
  const auto row = [&](const View& v, int64_t i) {
    return v.as<E>() + i / queries / heads * v.strides[0] + i / queries % heads * v.strides[1] +
           i % queries * v.strides[2];
  };
  parallel_for(delta.numel(), grain_for(2 * n * static_cast<int64_t>(sizeof(E))), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      delta.as<C>()[i] = RowDot<E, C>(row(grad, i), row(out, i), n) - (grad_lse.data ? grad_lse.as<C>()[i] : C(0));
  });
}
void AttentionDelta(const View& grad, const View& out, const View& grad_lse, const View& delta) {
  dispatch_float("attention", out.dtype, [&]<class E>() { DeltaAs<E, ComputeType<E>>(grad, out, grad_lse, delta); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AttentionBackward);
HWY_EXPORT(AttentionDelta);

void attention_delta(const View& grad_out, const View& out, const View& grad_lse, const View& delta) {
  HWY_DYNAMIC_DISPATCH(AttentionDelta)(grad_out, out, grad_lse, delta);
}

void attention_sink_gradient(const View& sinks, const View& lse, const View& delta, const View& by_sinks) {
  dispatch(sinks.dtype, [&]<class T>() {
    if constexpr (std::is_floating_point_v<T>) {
      const int64_t batch = lse.sizes[0], heads = lse.sizes[1], queries = lse.sizes[2];
      for (int64_t h = 0; h < heads; ++h) {
        double sum = 0;
        for (int64_t b = 0; b < batch; ++b)
          for (int64_t at = (b * heads + h) * queries, i = at; i < at + queries; ++i)
            if (sinks.as<T>()[h] != -std::numeric_limits<T>::infinity())
              sum -= std::exp(static_cast<double>(sinks.as<T>()[h] - lse.as<T>()[i])) *
                     static_cast<double>(delta.as<T>()[i]);
        by_sinks.as<T>()[h] = static_cast<T>(sum);
      }
    }
  });
}

void attention_backward(std::span<const AttentionBackwardTask> tasks) {
  if (tasks.empty()) return;
  HWY_DYNAMIC_DISPATCH(AttentionBackward)(tasks, uses_bf16_dot(tasks[0].a.q.dtype));
}
void attention_backward(const Attention& a, const View& grad_out, const View& lse, const View& delta, const View& dq,
                        const View& dk, const View& dv, const View& lse_low) {
  if (dq.numel() + dk.numel() + dv.numel() == 0) return;
  const AttentionBackwardTask task{a, grad_out, lse, delta, dq, dk, dv, lse_low};
  attention_backward(std::span(&task, 1));
}

}  // namespace deepseek::kernels
#endif
