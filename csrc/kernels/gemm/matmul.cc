#include "kernels/gemm/matmul.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "kernels/gemm/matmul_bf16.h"
#include "kernels/gemm/matmul_float.h"
#include "kernels/loops/rows.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

struct Steps {
  int64_t a, b, c, bias;
};

// What the whole call is: one Gemm per batch index, batch dimensions merged where strides allow.
struct Problem {
  Gemm g;  // of batch index 0
  const void* bias = nullptr;
  int64_t bias_row = 0, bias_col = 0;
  int64_t batch = 1;
  bool accumulate = false;
  Dims sizes;                  // merged batch sizes, outermost first
  Steps steps[kMaxDims] = {};  // per merged batch dimension, in elements
  std::span<const Epilogue> epilogue;

  Steps offset(int64_t index) const {
    Steps o{};
    for (int d = sizes.size() - 1; d >= 0; --d) {
      const int64_t i = index % sizes[d];
      index /= sizes[d];
      o = {o.a + i * steps[d].a, o.b + i * steps[d].b, o.c + i * steps[d].c, o.bias + i * steps[d].bias};
    }
    return o;
  }
};

void append_batch_dim(Problem& p, int64_t size, const Steps& s) {
  if (size == 1) return;
  if (const int n = p.sizes.size(); n > 0) {
    Steps& prev = p.steps[n - 1];
    if (prev.a == s.a * size && prev.b == s.b * size && prev.c == s.c * size && prev.bias == s.bias * size) {
      p.sizes[n - 1] *= size;
      prev = s;
      return;
    }
  }
  p.steps[p.sizes.size()] = s;
  p.sizes.push_back(size);
}

// [B, M, K] @ [K, N] is one product of B * M rows: B is then packed once.
void fold_batch_into_rows(Problem& p) {
  while (!p.sizes.empty()) {
    const Steps s = p.steps[p.sizes.size() - 1];
    Gemm& g = p.g;
    const bool single = g.m == 1;
    if (s.b != 0 || !(single || (s.a == g.m * g.a_row && s.c == g.m * g.c_row && s.bias == g.m * p.bias_row))) return;
    if (single) g.a_row = s.a, g.c_row = s.c, p.bias_row = s.bias;
    g.m *= p.sizes.back();
    p.sizes.pop_back();
  }
}

void check_operands(const View& out, const View& a, const View& b, const View* bias) {
  const int nd = out.ndim();
  DS_CHECK(nd >= 2 && a.ndim() == nd && b.ndim() == nd, "matmul kernel: operands of ", a.ndim(), ", ", b.ndim(),
           " and ", nd, " dimensions");
  DS_CHECK(a.dtype == b.dtype && (!bias || bias->dtype == out.dtype) &&
               (a.dtype == out.dtype || (is_reduced_float(a.dtype) && out.dtype == DType::kFloat32)),
           "matmul kernel: mixed dtypes ", a.dtype, ", ", b.dtype, " into ", out.dtype);
  const int r = nd - 2, c = nd - 1;
  DS_CHECK(a.sizes[r] == out.sizes[r] && b.sizes[c] == out.sizes[c] && b.sizes[r] == a.sizes[c],
           "matmul kernel: ", a.sizes, " x ", b.sizes, " into ", out.sizes);
  DS_CHECK(out.sizes[c] <= 1 || out.strides[c] == 1, "matmul kernel: output rows are not contiguous");
}

void check_epilogue(const View& out, std::span<const Epilogue> epilogue) {
  DS_CHECK(epilogue.empty() || out.ndim() == 2, "matmul kernel: an epilogue on ", out.ndim(), " dimensions");
  for (const Epilogue& e : epilogue)
    DS_CHECK(!e.other.data || e.other.sizes == out.sizes, "matmul kernel: an epilogue with ", e.other.sizes, " on ",
             out.sizes);
}

// The product of batch index 0.
Gemm first_product(const View& out, const View& a, const View& b) {
  const int r = out.ndim() - 2, c = r + 1;
  return {a.dtype,      out.sizes[r], out.sizes[c], a.sizes[c],   a.data,   a.strides[r],
          a.strides[c], b.data,       b.strides[r], b.strides[c], out.data, out.strides[r]};
}

void add_to_c(Gemm& g) {
  g.c0 = g.c;
  g.c0_row = g.c_row;
}

Problem plan(const View& out, const View& a, const View& b, const View* bias, bool accumulate) {
  const int nd = out.ndim(), r = nd - 2, c = nd - 1;
  const int64_t n = out.sizes[c];
  Problem p;
  p.g = first_product(out, a, b);
  p.accumulate = accumulate;
  Dims bias_strides = Dims::filled(nd, 0);
  if (bias) {
    if (bias->ndim() == 1 && nd != 1)
      bias_strides[c] = bias->sizes[0] == 1 ? 0 : bias->strides[0];
    else
      bias_strides = bias->strides;
    DS_CHECK(bias->sizes.back() == n || n == 0, "matmul kernel: bias of size ", bias->sizes, " for ", out.sizes);
    p.bias = bias->data;
    p.bias_row = bias_strides[r];
    p.bias_col = bias_strides[c];
  }
  for (int d = 0; d < r; ++d) {
    DS_CHECK(a.sizes[d] == out.sizes[d] && b.sizes[d] == out.sizes[d], "matmul kernel: batch ", a.sizes, " x ",
             b.sizes);
    append_batch_dim(p, out.sizes[d], {a.strides[d], b.strides[d], out.strides[d], bias_strides[d]});
  }
  fold_batch_into_rows(p);
  for (int64_t s : p.sizes) p.batch *= s;
  if (numel_of(out.sizes) == 0) p.batch = 0;
  return p;
}

// Multiply-adds that a second thread does not pay for, and those that one call of a kernel is worth.
constexpr int64_t kSerialWork = 64 * 1024, kCallWork = 500;

// How one product is cut into m_parts x n_parts. The cut changes no bits.
struct Cut {
  int64_t m_parts = 1, n_parts = 1;
  int64_t m_step, n_step;
};

constexpr int64_t kRowUnit = 6, kColUnit = 64;  // register tile of the kernels: cuts fall on its borders

Cut cut_for(const Gemm& g, int64_t parts) {
  const auto steps = [](int64_t size, int64_t n, int64_t unit) {
    return ((size + n - 1) / n + unit - 1) / unit * unit;
  };
  Cut best{1, 1, g.m, g.n};
  double best_cost = 1e300;
  for (int64_t mp = 1; mp <= parts; ++mp) {
    const int64_t np = parts / mp;
    const int64_t ms = std::max(steps(g.m, mp, kRowUnit), kRowUnit), ns = std::max(steps(g.n, np, kColUnit), kColUnit);
    // Cycles per k: multiply-adds, packing a stretch of B, reading a column of A.
    const double m = std::min(ms, g.m), n = std::min(ns, g.n);
    const double cost = m * n / 16 + n * 0.5 + m * 0.2;
    if (cost < best_cost) {
      best_cost = cost;
      best = {(g.m + ms - 1) / ms, (g.n + ns - 1) / ns, ms, ns};
    }
  }
  return best;
}

template <class T>
T add_bias(T old, T bias) {
  if constexpr (std::is_same_v<T, bool>)
    return old || bias;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(old) + static_cast<uint64_t>(bias));
  else
    return old + bias;
}

// What the product starts from: C, the bias where its rows are contiguous, or C filled with it.
template <class T>
void start_with_bias(const Problem& p, Gemm& g, T* c, const T* bias) {
  if (!p.accumulate && (p.bias_col == 1 || g.n == 1)) {
    g.c0 = bias;
    g.c0_row = p.bias_row;
    return;
  }
  for (int64_t i = 0; i < g.m; ++i) {
    const T* from = bias + i * p.bias_row;
    T* to = c + i * g.c_row;
    for (int64_t j = 0; j < g.n; ++j)
      to[j] = p.accumulate ? add_bias(to[j], from[j * p.bias_col]) : from[j * p.bias_col];
  }
  add_to_c(g);
}

void gemm(const Gemm& g, int64_t count = 1, int64_t a_step = 0, int64_t b_step = 0, int64_t c_step = 0) {
  if (uses_bf16_dot(g.dtype)) return gemm_bf16(g, count, a_step, b_step, c_step);
  gemm_float(g, count, a_step, b_step, c_step);
}

// bf16 and f16: the sum is made in float, then rounded once. c and bias are at the rectangle's or block's first
// element.
template <class S>
struct SmallFloats {
  const Problem& p;
  S* c;
  const S* bias;

  void run(const Gemm& g) const {
    if (g.m == 0 || g.n == 0) return;
    const bool bias_of_all = bias && !p.accumulate && (p.bias_row == 0 || g.m == 1);
    Buffer row(bias_of_all ? static_cast<size_t>(g.n) * sizeof(float) : 64);
    if (bias_of_all) load_row(g.dtype, bias, p.bias_col, g.n, row.as<float>());
    const bool kernel_rounds =
        uses_bf16_dot(g.dtype) && g.k > 0 && g.m > kBf16FewRows && (bias_of_all || !(bias || p.accumulate));
    const bool whole = kernel_rounds && g.k <= kGemmBlockK;
    const int64_t rows = whole ? g.m : std::min<int64_t>(g.m, 960), columns = whole ? g.n : std::min<int64_t>(g.n, 512);
    Buffer sums(whole ? 64 : static_cast<size_t>(rows * columns) * sizeof(float));  // stay in the caches
    for (int64_t i0 = 0; i0 < g.m; i0 += rows)
      for (int64_t j0 = 0; j0 < g.n; j0 += columns) {
        Gemm block = g;
        block.m = std::min(rows, g.m - i0);
        block.n = std::min(columns, g.n - j0);
        block.a = static_cast<const S*>(g.a) + i0 * g.a_row;
        block.b = static_cast<const S*>(g.b) + j0 * g.b_col;
        block.c = c + i0 * g.c_row + j0;
        if (bias_of_all) block.c0 = row.as<float>() + j0;
        if (kernel_rounds)
          gemm_bf16_rounded(block, whole ? nullptr : sums.as<float>());
        else
          run_block(block, bias && !bias_of_all ? bias + i0 * p.bias_row + j0 * p.bias_col : nullptr, sums.as<float>());
      }
  }

 private:
  void run_block(Gemm g, const S* start, float* sums) const {
    S* to = static_cast<S*>(g.c);
    const int64_t to_row = g.c_row;
    g.c = sums;
    g.c_row = g.n;
    for (int64_t i = 0; i < g.m && (p.accumulate || start); ++i) {
      float* row = sums + i * g.n;
      if (p.accumulate)
        load_row(g.dtype, to + i * to_row, 1, g.n, row);
      else
        load_row(g.dtype, start + i * p.bias_row, p.bias_col, g.n, row);
      for (int64_t j = 0; p.accumulate && start && j < g.n; ++j)
        row[j] += static_cast<float>(start[i * p.bias_row + j * p.bias_col]);
    }
    if (p.accumulate || start) g.c0 = sums, g.c0_row = g.n;
    gemm(g);
    if (to_row == g.n) return store_row(g.dtype, to, 1, g.m * g.n, sums);
    for (int64_t i = 0; i < g.m; ++i) store_row(g.dtype, to + i * to_row, 1, g.n, sums + i * g.n);
  }
};

// One rectangle of one product without its epilogue. S: the type of A and B, T: that of C.
template <class S, class T>
void run_rectangle(const Problem& p, const Steps& at, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  Gemm g = p.g;
  g.m = m;
  g.n = n;
  g.a = static_cast<const S*>(g.a) + at.a + i0 * g.a_row;
  g.b = static_cast<const S*>(g.b) + at.b + j0 * g.b_col;
  T* c = static_cast<T*>(g.c) + at.c + i0 * g.c_row + j0;
  g.c = c;
  const T* bias = p.bias ? static_cast<const T*>(p.bias) + at.bias + i0 * p.bias_row + j0 * p.bias_col : nullptr;
  if constexpr (is_small_float<T>) {
    SmallFloats<T>{p, c, bias}.run(g);
  } else {
    if (p.accumulate) add_to_c(g);
    if (bias) start_with_bias(p, g, c, bias);
    if constexpr (std::is_floating_point_v<T>)
      gemm(g);
    else
      gemm_integer(g);
  }
}

View rectangle_of(const View& v, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  return {static_cast<char*>(v.data) + (i0 * v.strides[0] + j0 * v.strides[1]) * size_of(v.dtype),
          v.dtype,
          {m, n},
          v.strides};
}

template <class S, class T>
void run_part(const Problem& p, const Steps& at, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  if (p.epilogue.empty()) return run_rectangle<S, T>(p, at, i0, m, j0, n);
  constexpr int64_t kColumns = 512;
  const View c{p.g.c, dtype_of<T>, {p.g.m, p.g.n}, {p.g.c_row, 1}};
  for (int64_t j = j0; j < j0 + n; j += kColumns) {
    const int64_t columns = std::min(kColumns, j0 + n - j);
    run_rectangle<S, T>(p, at, i0, m, j, columns);
    const View part = rectangle_of(c, i0, m, j, columns);
    for (const Epilogue& e : p.epilogue) {
      if (!e.other.data) {
        pointwise(e.op, c.dtype, part, {&part, 1});
        continue;
      }
      View in[] = {part, rectangle_of(e.other, i0, m, j, columns)};
      if (e.other_first) std::swap(in[0], in[1]);
      pointwise(e.op, c.dtype, part, in);
    }
  }
}

// Whole products [begin, end) of the batch; plain floats without bias go in one kernel call per run of equal steps.
template <class S, class T>
void run_batch(const Problem& p, int64_t begin, int64_t end) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!p.bias && !p.sizes.empty()) {
      const int last = p.sizes.size() - 1;
      while (begin < end) {
        const int64_t count = std::min(end - begin, p.sizes[last] - begin % p.sizes[last]);
        const Steps at = p.offset(begin);
        Gemm g = p.g;
        g.a = static_cast<const S*>(g.a) + at.a;
        g.b = static_cast<const S*>(g.b) + at.b;
        g.c = static_cast<T*>(g.c) + at.c;
        if (p.accumulate) add_to_c(g);
        gemm(g, count, p.steps[last].a, p.steps[last].b, p.steps[last].c);
        begin += count;
      }
      return;
    }
  }
  for (int64_t i = begin; i < end; ++i) run_part<S, T>(p, p.offset(i), 0, p.g.m, 0, p.g.n);
}

template <class S, class T>
void run(const Problem& p) {
  const double serial_work = static_cast<double>(limited_grain(kSerialWork));
  const Gemm& g = p.g;
  const double work = static_cast<double>(g.m) * g.n * std::max<int64_t>(g.k, 1) + (is_dense_4x4(g) ? 0 : kCallWork);
  const int64_t threads = in_parallel_region() ? 1 : num_threads();
  if (threads == 1 || p.batch >= 4 * threads || work * p.batch <= serial_work) {
    const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(serial_work / std::max(work, 1.0)));
    return parallel_for(p.batch, grain, [&](int64_t begin, int64_t end) { run_batch<S, T>(p, begin, end); });
  }
  const int64_t useful = static_cast<int64_t>(std::min<double>(threads, work * p.batch / serial_work)) + 1;
  const Cut cut = cut_for(g, (std::min(useful, threads) + p.batch - 1) / p.batch);
  const int64_t parts = cut.m_parts * cut.n_parts;
  parallel_for(p.batch * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t i0 = u % parts / cut.n_parts * cut.m_step, j0 = u % cut.n_parts * cut.n_step;
      run_part<S, T>(p, p.offset(u / parts), i0, std::min(cut.m_step, g.m - i0), j0, std::min(cut.n_step, g.n - j0));
    }
  });
}

}  // namespace

void matmul(const View& out, const View& a, const View& b, const View* bias, bool accumulate,
            std::span<const Epilogue> epilogue) {
  check_operands(out, a, b, bias);
  check_epilogue(out, epilogue);
  if (out.ndim() == 2 && !bias && epilogue.empty() && (out.dtype == DType::kFloat32 || out.dtype == DType::kFloat64) &&
      static_cast<double>(out.sizes[0]) * static_cast<double>(out.sizes[1]) * static_cast<double>(a.sizes[1]) <=
          limited_grain(kSerialWork)) {  // small: nothing to plan
    Gemm g = first_product(out, a, b);
    if (accumulate) add_to_c(g);
    return gemm(g);
  }
  Problem p = plan(out, a, b, bias, accumulate);
  p.epilogue = epilogue;
  if (p.batch == 0) return;
  dispatch(out.dtype, [&]<class T>() {
    if constexpr (std::is_same_v<T, Float8E4M3> || std::is_same_v<T, Float8E5M2>)
      fail<NotImplementedError>("matmul: not implemented for ", out.dtype, "; convert to bfloat16 or float32 first");
    else if (p.g.dtype == DType::kBFloat16 && std::is_same_v<T, float>)
      run<BFloat16, float>(p);
    else if (p.g.dtype == DType::kFloat16 && std::is_same_v<T, float>)
      run<Half, float>(p);
    else
      run<T, T>(p);
  });
}

const char* matmul_route(DType dtype) {
  if (uses_bf16_dot(dtype)) return "AVX512_BF16 dot products, float sums";
  if (is_reduced_float(dtype)) return "read as float32";
  if (is_float8(dtype)) return "none";
  return is_exact(dtype) ? "integer" : is_floating(dtype) ? "fused multiply-add" : "none";
}

}  // namespace deepseek::kernels
