#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/loops/cast.h"
#include "kernels/simd/routes.h"
#include "kernels/sparse_attention/blocks/select_blocks.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

template <class T>
class PlainSelection {
 public:
  explicit PlainSelection(const SelectBlocks& a) : a_(a), group_(a.q.sizes[1] / a.k.sizes[1]), d_(a.q.sizes[3]) {}

  // The blocks of a query, ascending.
  std::vector<int64_t> choose(int64_t b, int64_t head, int64_t query) {
    const int64_t position = a_.query_start + query, own = a_.own(position);
    std::vector<int64_t> all(static_cast<size_t>(a_.visible(position)));
    std::iota(all.begin(), all.end(), 0);
    if (a_.takes_all(position)) return all;
    const std::vector<double> rank = a_.mass > 0 ? weights(b, head, query) : scores(b, head, query);
    const bool first = a_.first_always(position);
    const auto always = [&](int64_t block) { return block == own ? 2 : block == 0 ? (first ? 1 : -1) : 0; };
    const auto at = [&](int64_t block) { return rank[static_cast<size_t>(block)]; };
    std::stable_sort(all.begin(), all.end(), [&](int64_t x, int64_t y) {
      if (always(x) != always(y)) return always(x) > always(y);
      return at(x) > at(y) || (std::isnan(at(x)) && !std::isnan(at(y)));
    });
    const auto budget = std::min(a_.budget(position), static_cast<int64_t>(all.size()));
    int64_t taken = 0;
    double sum = 0;
    const double enough = a_.mass < 1 ? a_.mass * static_cast<double>(group_) : INFINITY;
    while (taken < budget && (a_.mass == 0 || sum < enough || always(all[static_cast<size_t>(taken)]) > 0))
      sum += at(all[static_cast<size_t>(taken++)]);
    all.resize(static_cast<size_t>(taken));
    std::sort(all.begin(), all.end());
    return all;
  }

 private:
  const T* row(const View& v, int64_t b, int64_t head, int64_t at) const {
    return v.as<T>() + b * v.strides[0] + head * v.strides[1] + at * v.strides[2];
  }
  template <class Q>
  double dot(const Q* q, const T* k) const {
    double sum = 0;
    for (int64_t i = 0; i < d_; ++i) sum += convert<double>(q[i]) * convert<double>(k[i]);
    return sum;
  }

  std::vector<double> scores(int64_t b, int64_t head, int64_t query) const {
    std::vector<T> mean(static_cast<size_t>(d_));
    for (int64_t i = 0; i < d_; ++i) {
      double sum = 0;
      for (int64_t g = 0; g < group_; ++g) sum += convert<double>(row(a_.q, b, head * group_ + g, query)[i]);
      mean[static_cast<size_t>(i)] = convert<T>(sum / static_cast<double>(group_));
    }
    std::vector<double> of(static_cast<size_t>(a_.visible(a_.query_start + query)));
    for (int64_t j = 0; j < std::min<int64_t>(a_.means.sizes[2], static_cast<int64_t>(of.size())); ++j)
      of[static_cast<size_t>(j)] = dot(mean.data(), row(a_.means, b, head, j));
    return of;
  }

  std::vector<double> weights(int64_t b, int64_t head, int64_t query) const {
    const int64_t position = a_.query_start + query, own = a_.own(position), visible = a_.visible(position),
                  first = own * a_.block_size, last = a_.causal ? position + 1 : first + a_.keys_in(own);
    std::vector<double> sum(static_cast<size_t>(visible)), of(sum.size());
    for (int64_t g = 0; g < group_; ++g) {
      const T* q = row(a_.q, b, head * group_ + g, query);
      std::vector<double> mine;
      for (int64_t key = first; key < last; ++key) mine.push_back(a_.scale * dot(q, row(a_.k, b, head, key)));
      double top = *std::max_element(mine.begin(), mine.end());
      for (int64_t j = 0; j < visible; ++j)
        if (j != own) top = std::max(top, of[static_cast<size_t>(j)] = a_.scale * dot(q, row(a_.means, b, head, j)));
      double total = 0;
      for (int64_t j = 0; j < visible; ++j) {
        double& w = of[static_cast<size_t>(j)];
        w = j == own ? 0 : static_cast<double>(a_.keys_in(j)) * std::exp(w - top);
        if (j == own)
          for (const double score : mine) w += std::exp(score - top);
        total += w;
      }
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += of[j] / total;
    }
    return sum;
  }

  const SelectBlocks& a_;
  const int64_t group_, d_;
};

template <class T>
void select_all(const SelectBlocks& a, const View& out) {
  const int64_t queries = a.q.sizes[2], heads = a.k.sizes[1], n = out.sizes[3];
  parallel_for(a.q.sizes[0] * heads * queries, limited_grain(1), [&](int64_t begin, int64_t end) {
    PlainSelection<T> selection(a);
    for (int64_t i = begin; i < end; ++i) {
      std::vector<int64_t> chosen = selection.choose(i / queries / heads, i / queries % heads, i % queries);
      chosen.resize(static_cast<size_t>(n), -1);
      std::copy(chosen.begin(), chosen.end(), out.as<int64_t>() + i * n);
    }
  });
}

}  // namespace

void select_blocks_plain(const SelectBlocks& a, const View& out) {
  count_route(Route::kSelectBlocksPlain);
  dispatch_float("select_blocks", a.q.dtype, [&]<class T>() { select_all<T>(a, out); });
}

}  // namespace deepseek::kernels
