// Creation, copies and dtype conversion.
#include <cmath>
#include <limits>

#include "core/dispatch/copy_ops.h"
#include "core/dispatch/recorder.h"
#include "kernels/loops/copy.h"
#include "ops/composite.h"
#include "runtime/parallel.h"

namespace deepseek {

#define DS_OPTIONS "*, dtype? dtype=None, device? device=None, bool requires_grad=False"

struct Empty {
  Dims size;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "empty(int[]* size, " DS_OPTIONS ") -> Tensor",
                               .doc = "Uninitialised memory.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const Empty&) const = default;
  Meta infer(Inputs) const { return {dtype.value_or(default_dtype()), size}; }
  void eval(Inputs, Tensor&) const {}
};
DS_OP(Empty);

void fill_with(const Scalar& value, const Tensor& out) {
  check_fits(value, out.dtype());
  alignas(8) char bytes[8];
  value.store(bytes);
  kernels::fill(out.view(), bytes, value.dtype());
}

#define DS_FILLED(S, name, value)                                                           \
  struct S {                                                                                \
    Dims size;                                                                              \
    Opt<DType> dtype;                                                                       \
    static constexpr OpInfo info{.schema = #name "(int[]* size, " DS_OPTIONS ") -> Tensor", \
                                 .doc = "Filled with " #value ".",                          \
                                 .differentiable = false,                                   \
                                 .shown = Shown::kFunction};                                \
    bool operator==(const S&) const = default;                                              \
    Meta infer(Inputs) const { return {dtype.value_or(default_dtype()), size}; }            \
    void eval(Inputs, Tensor& out) const { fill_with(Scalar(value), out); }                 \
  };                                                                                        \
  DS_OP(S);                                                                                 \
  Tensor name(const Dims& size, DType dtype) { return apply(S{size, dtype}); }
DS_FILLED(Zeros, zeros, 0)
DS_FILLED(Ones, ones, 1)

struct Full {
  Dims size;
  Scalar fill_value;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "full(int[] size, Scalar fill_value, " DS_OPTIONS ") -> Tensor",
                               .doc = "Filled with `fill_value`, whose kind decides the dtype when none is given.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const Full&) const = default;
  Meta infer(Inputs) const {
    return {dtype.value_or(fill_value.is_float() ? default_dtype() : fill_value.dtype()), size};
  }
  void eval(Inputs, Tensor& out) const { fill_with(fill_value, out); }
};
DS_OP(Full);
Tensor full(const Dims& size, Scalar value, DType dtype) { return apply(Full{size, value, dtype}); }

DS_BODY(ScalarTensor, "scalar_tensor(Scalar s, " DS_OPTIONS ") -> Tensor",
        "A 0-d tensor; of the default dtype unless one is given.", false, kFunction, Scalar s;
        Opt<DType> dtype;) {
  return full({}, s, dtype.value_or(default_dtype()));
}

#define DS_LIKE(S, name, value)                                                               \
  struct S {                                                                                  \
    Opt<DType> dtype;                                                                         \
    static constexpr OpInfo info{.schema = #name "(Tensor input, " DS_OPTIONS ") -> Tensor",  \
                                 .doc = "Of input's size and dtype, filled with " #value ".", \
                                 .saves = Saves::kNone,                                       \
                                 .differentiable = false,                                     \
                                 .shown = Shown::kFunction};                                  \
    bool operator==(const S&) const = default;                                                \
    Meta infer(Inputs in) const { return {dtype.value_or(in[0].dtype()), in[0].sizes()}; }    \
    void eval(Inputs, Tensor& out) const { fill_with(Scalar(value), out); }                   \
  };                                                                                          \
  DS_OP(S);
DS_LIKE(ZerosLike, zeros_like, 0)
DS_LIKE(OnesLike, ones_like, 1)
// Inputs may be geometry only (a vjp's unsaved input): their data is never read.
Tensor zeros_like(const Tensor& t) { return zeros(t.sizes(), t.dtype()); }
Tensor ones_like(const Tensor& t) { return ones(t.sizes(), t.dtype()); }

struct EmptyLike {
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "empty_like(Tensor input, " DS_OPTIONS ") -> Tensor",
                               .doc = "Uninitialised memory of input's size and dtype.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const EmptyLike&) const = default;
  Meta infer(Inputs in) const { return {dtype.value_or(in[0].dtype()), in[0].sizes()}; }
  void eval(Inputs, Tensor&) const {}
};
DS_OP(EmptyLike);

struct FullLike {
  Scalar fill_value;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "full_like(Tensor input, Scalar fill_value, " DS_OPTIONS ") -> Tensor",
                               .doc = "Of input's size and dtype, filled with `fill_value`.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const FullLike&) const = default;
  Meta infer(Inputs in) const { return {dtype.value_or(in[0].dtype()), in[0].sizes()}; }
  void eval(Inputs, Tensor& out) const { fill_with(fill_value, out); }
};
DS_OP(FullLike);
Tensor full_like(const Tensor& t, Scalar value) { return apply(FullLike{value, {}}, t); }

// p[i] = value(i) for first <= i < end, where the position is a double: exact, and ready for vectors.
template <class T, class F>
void fill_by_position(T* p, int64_t first, int64_t end, F value) {
  constexpr int64_t kBlock = 1 << 20;
  parallel_for(end - first, grain_for(2 * sizeof(double)), [&](int64_t b, int64_t e) {
    for (int64_t begin = first + b; begin < first + e; begin += kBlock) {
      const auto n = static_cast<int32_t>(std::min(kBlock, first + e - begin));
      const auto position = static_cast<double>(begin);
      for (int32_t j = 0; j < n; ++j) p[begin + j] = static_cast<T>(value(position + static_cast<double>(j)));
    }
  });
}

// arange in one of its three spellings.
struct ArangeRange {
  Scalar start, end, step;
  Meta meta(Opt<DType> dtype) const {
    DS_CHECK(step.to_double() != 0 && !std::isnan(step.to_double()), "arange: step must be nonzero, got ", step);
    DS_CHECK(std::isfinite(start.to_double()) && std::isfinite(end.to_double()), "arange: unsupported range: ", start,
             " -> ", end);
    if (is_float() && dtype && is_exact(*dtype)) {
      for (const Scalar& s : {start, end, step}) check_fits(s, DType::kInt64);
      if (*dtype == DType::kInt64) return ArangeRange{start.to_int(), end.to_int(), step.to_int()}.meta(dtype);
    }
    const int64_t n = is_float() ? count_floats() : count_integers();
    return {dtype.value_or(is_float() ? default_dtype() : DType::kInt64), {n}};
  }
  void fill(Tensor& out) const {
    const int64_t n = out.numel();
    dispatch(out.dtype(), [&]<class T>() {
      T* p = out.data<T>();
      if constexpr (std::is_integral_v<T>) {
        // Integers count from the integer part of start by the integer part of step; on the way there they may wrap.
        const auto first = static_cast<uint64_t>(start.to_int()), by = static_cast<uint64_t>(step.to_int());
        parallel_for(n, grain_for(2 * sizeof(int64_t)), [&](int64_t b, int64_t e) {
          for (int64_t i = b; i < e; ++i)
            p[i] = static_cast<T>(static_cast<int64_t>(first + by * static_cast<uint64_t>(i)));
        });
      } else {
        fill_by_position(p, 0, n,
                         [first = start.to_double(), by = step.to_double()](double i) { return first + i * by; });
      }
    });
  }

 private:
  bool is_float() const { return start.is_float() || end.is_float() || step.is_float(); }
  void check_direction(bool fits) const {
    DS_CHECK(fits, "arange: upper bound and lower bound inconsistent with step sign: from ", start, " to ", end, " by ",
             step);
  }
  [[noreturn]] void refuse_count() const {
    fail<Error>("arange: from ", start, " to ", end, " by ", step, " has more elements than an int64 can count");
  }
  int64_t count_floats() const {
    const double a = start.to_double(), b = end.to_double(), by = step.to_double();
    check_direction(by > 0 ? b >= a : b <= a);
    const double n = std::ceil((b - a) / by);
    if (!(n < 0x1p63)) refuse_count();
    return static_cast<int64_t>(n);
  }
  // Exact up to the limits of int64.
  int64_t count_integers() const {
    const int64_t a = start.to_int(), b = end.to_int(), by = step.to_int();
    check_direction(by > 0 ? b >= a : b <= a);
    const auto distance = [](int64_t from, int64_t to) {
      return static_cast<uint64_t>(to) - static_cast<uint64_t>(from);
    };
    const uint64_t span = by > 0 ? distance(a, b) : distance(b, a), pace = by > 0 ? distance(0, by) : distance(by, 0);
    const uint64_t n = span / pace + (span % pace != 0);
    if (n > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) refuse_count();
    return static_cast<int64_t>(n);
  }
};

struct Arange {
  Scalar end;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "arange(Scalar end, " DS_OPTIONS ") -> Tensor",
                               .doc = "0, 1, … below `end`.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const Arange&) const = default;
  Meta infer(Inputs) const { return ArangeRange{0, end, 1}.meta(dtype); }
  void eval(Inputs, Tensor& out) const { ArangeRange{0, end, 1}.fill(out); }
};
DS_OP(Arange);
Tensor arange(int64_t end, DType dtype) { return apply(Arange{end, dtype}); }

struct ArangeStart {
  Scalar start, end, step;
  Opt<DType> dtype;
  static constexpr OpInfo info{
      .schema = "arange.start(Scalar start, Scalar end, Scalar step=1, " DS_OPTIONS ") -> Tensor",
      .doc = "start, start + step, … below `end`.",
      .differentiable = false,
      .shown = Shown::kFunction};
  bool operator==(const ArangeStart&) const = default;
  Meta infer(Inputs) const { return ArangeRange{start, end, step}.meta(dtype); }
  void eval(Inputs, Tensor& out) const { ArangeRange{start, end, step}.fill(out); }
};
DS_OP(ArangeStart);

struct Linspace {
  Scalar start, end;
  int64_t steps;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "linspace(Scalar start, Scalar end, int steps, " DS_OPTIONS ") -> Tensor",
                               .doc = "`steps` evenly spaced values from start to end, both included.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const Linspace&) const = default;
  Meta infer(Inputs) const {
    DS_CHECK(steps >= 0, "number of steps must be non-negative, got ", steps);
    const DType t = dtype.value_or(default_dtype());
    if (is_integral(t))
      for (const Scalar& s : {start, end}) check_fits(s, DType::kInt64), check_fits(Scalar(s.to_int()), t);
    return {t, {steps}};
  }
  void eval(Inputs, Tensor& out) const {
    if (is_exact(out.dtype()) && (beyond_doubles(start) || beyond_doubles(end))) return fill_exactly(out);
    const bool floats = !is_exact(out.dtype());
    const double a = floats ? start.to_double() : static_cast<double>(start.to_int());
    const double b = floats ? end.to_double() : static_cast<double>(end.to_int());
    const auto parts = static_cast<double>(std::max<int64_t>(steps - 1, 1));
    const double step = std::isfinite(b - a) ? (b - a) / parts : b / parts - a / parts;
    dispatch(out.dtype(), [&]<class T>() {
      // From both ends, so that the last value is exact.
      const int64_t half = std::max<int64_t>(steps / 2, steps == 1);
      const auto last = static_cast<double>(steps - 1);
      fill_by_position(out.data<T>(), 0, half, [=](double i) { return a + step * i; });
      fill_by_position(out.data<T>(), half, steps, [=](double i) { return b - step * (last - i); });
    });
  }

 private:
  // Doubles do not tell all integers of this size apart.
  static bool beyond_doubles(const Scalar& s) { return std::abs(s.to_double()) > 0x1p53; }
  void fill_exactly(Tensor& out) const {
    const __int128 a = start.to_int(), b = end.to_int(), parts = std::max<int64_t>(steps - 1, 1);
    dispatch(out.dtype(), [&]<class T>() {
      if constexpr (std::is_integral_v<T>)
        for (int64_t i = 0; i < steps; ++i) out.data<T>()[i] = static_cast<T>((a * (parts - i) + b * i) / parts);
    });
  }
};
DS_OP(Linspace);

DS_BODY(Logspace, "logspace(Scalar start, Scalar end, int steps, float base=10.0, " DS_OPTIONS ") -> Tensor",
        "`steps` values from base**start to base**end, evenly spaced in the exponent; shape [steps].", false, kFunction,
        Scalar start;
        Scalar end; int64_t steps; double base; Opt<DType> dtype;) {
  const DType t = dtype.value_or(default_dtype());
  const auto bound = [&](const Scalar& s) {
    if (is_floating(t)) return s;
    check_fits(s, DType::kInt64);
    return Scalar(s.to_int());
  };
  const Tensor exponents = apply(Linspace{bound(start), bound(end), steps, DType::kFloat64});
  return to_dtype(pow(full({}, base, DType::kFloat64), exponents), t);
}

struct Eye {
  int64_t n;
  Opt<int64_t> m;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "eye(int n, int? m=None, " DS_OPTIONS ") -> Tensor",
                               .doc = "Ones on the diagonal, zeros elsewhere.",
                               .differentiable = false,
                               .shown = Shown::kFunction};
  bool operator==(const Eye&) const = default;
  Meta infer(Inputs) const {
    DS_CHECK(n >= 0, "n must be greater or equal to 0, got ", n);
    DS_CHECK(m.value_or(n) >= 0, "m must be greater or equal to 0, got ", m.value_or(n));
    return {dtype.value_or(default_dtype()), {n, m.value_or(n)}};
  }
  void eval(Inputs, Tensor& out) const {
    fill_with(Scalar(0), out);
    const int64_t k = std::min(out.sizes()[0], out.sizes()[1]);
    const Tensor diagonal = out.alias({{k}, {out.sizes()[1] + 1}, 0});
    fill_with(Scalar(1), diagonal);
  }
};
DS_OP(Eye);

// --- writes of one value: fill_, zero_

struct Fill {
  static constexpr OpInfo info{.schema = "fill(Tensor input, Tensor|Number value) -> Tensor",
                               .doc = "Of input's size and dtype, every element `value` (a number or 0-d tensor).",
                               .saves = Saves::kNone,
                               .inplace = true,
                               .elementwise = true,
                               .fills = true};
  bool operator==(const Fill&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[1].dim() == 0, "fill_ only supports 0-dimension value tensor but got tensor with ", in[1].dim(),
             " dimensions.");
    check_number_fits(in[1], in[0].dtype());
    return {in[0].dtype(), in[0].sizes()};
  }
  void eval(Inputs in, Tensor& out) const { kernels::fill(out.view(), in[1].data_ptr(), in[1].dtype()); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.grad[0]), c.need(1) ? sum(c.grad[0]) : Tensor()}; }
};
DS_OP(Fill);

struct Zero {
  static constexpr OpInfo info{.schema = "zero(Tensor input) -> Tensor",
                               .doc = "Zeros of input's size and dtype.",
                               .saves = Saves::kNone,
                               .inplace = true,
                               .elementwise = true,
                               .fills = true,
                               .shown = Shown::kHidden};
  bool operator==(const Zero&) const = default;
  Meta infer(Inputs in) const { return {in[0].dtype(), in[0].sizes()}; }
  void eval(Inputs, Tensor& out) const { fill_with(Scalar(0), out); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.grad[0])}; }
};
DS_OP(Zero);

// --- copies

Tensor clone(const Tensor& input) { return apply(Clone{}, input); }

struct Restride {  // the same values laid out with the given strides
  Dims strides;
  static constexpr OpInfo info{.schema = "_restride(Tensor input, int[] strides) -> Tensor",
                               .doc = "The same values in memory with the given strides.",
                               .saves = Saves::kNone,
                               .shown = Shown::kHidden};
  bool operator==(const Restride&) const = default;
  Meta infer(Inputs in) const { return {in[0].dtype(), in[0].sizes(), strides}; }
  void eval(Inputs in, Tensor& out) const { kernels::copy(out.view(), in[0].view()); }
  Grads vjp(const Vjp& c) const { return {c.grad[0]}; }
};
DS_OP(Restride);
Tensor restride(const Tensor& input, const Dims& strides) {
  return input.strides() == strides ? input : apply(Restride{strides}, input);
}

struct Contiguous {
  static constexpr OpInfo info{.schema = "contiguous(Tensor input) -> Tensor",
                               .doc = "input itself when its memory is in row-major order, else such a copy.",
                               .shown = Shown::kMethod};
  bool operator==(const Contiguous&) const = default;
  Tensor body(Inputs in) const {
    return in[0].is_contiguous() ? in[0] : apply(Restride{contiguous_strides(in[0].sizes())}, in[0]);
  }
};
DS_OP(Contiguous);
Tensor contiguous(const Tensor& input) { return Contiguous{}.body({&input, 1}); }

void check_number_fits(const Tensor& value, DType dtype) {
  if (value.defined() && value.cell()->wrapped_number) check_fits(value.item(), dtype);
}

Tensor to_dtype(const Tensor& input, DType dtype) {
  return input.dtype() == dtype && !input.cell()->wrapped_number ? input : apply(ToDtype{dtype}, input);
}

struct Detach {
  static constexpr OpInfo info{.schema = "detach(Tensor input) -> Tensor",
                               .doc = "The same memory, outside the graph.",
                               .differentiable = false};
  bool operator==(const Detach&) const = default;
  ViewSpec view(const Tensor& t) const { return {t.sizes(), t.strides(), 0}; }
};
DS_OP(Detach);
Tensor detach(const Tensor& input) { return apply(Detach{}, input); }

Tensor set_requires_grad(Tensor t, bool on) {
  if (mode().recorder && on != t.requires_grad())
    mode().recorder->refuse("requires_grad is changed, or set on a tensor made in it");
  DS_CHECK(!on || (is_differentiable(t.dtype()) && !is_float8(t.dtype())),
           "only Tensors of floating point dtype can require gradients, got ", name_of(t.dtype()));
  if (!t.is_leaf()) {
    DS_CHECK(on,
             "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
             "subgraph that doesn't require differentiation use var_no_grad = var.detach().");
    return t;  // it requires one already
  }
  DS_CHECK(!on || !t.cell()->inference || mode().inference,
           "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.");
  t.cell()->requires_grad = on;
  return t;
}

}  // namespace deepseek
