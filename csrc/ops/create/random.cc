// Random numbers. The last input of every kernel here is the generator state {seed, offset}, which dispatch fills in.
#include "kernels/random/random.h"

#include "core/dispatch/inplace.h"
#include "core/dispatch/promotion.h"
#include "core/dispatch/recorder.h"
#include "kernels/loops/copy.h"
#include "kernels/reduce/reduce.h"
#include "ops/composite.h"
#include "ops/reduce/reduce.h"

namespace deepseek {
namespace {

RngState state_of(Inputs in) {
  const int64_t* words = in.back().data<int64_t>();
  return {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
}

constexpr OpInfo create_info(const char* schema, const char* doc) {
  return {.schema = schema,
          .doc = doc,
          .saves = Saves::kNone,
          .differentiable = false,
          .random = true,
          .shown = Shown::kFunction};
}
// The value of an in-place fill: the tensor's size and dtype, nothing of its values, so its gradient is zero.
constexpr OpInfo fill_info(const char* schema, const char* doc, bool inplace = true) {
  return {
      .schema = schema, .doc = doc, .saves = Saves::kNone, .inplace = inplace, .random = true, .shown = Shown::kHidden};
}

// Bits that hold every integer up to 2^bits (floating) or 2^bits - 1 exactly.
int integer_bits(DType t) {
  switch (t) {
    case DType::kBool:
      return 1;
    case DType::kFloat8E4M3:
      return 4;
    case DType::kFloat8E5M2:
      return 3;
    case DType::kFloat16:
      return 11;
    case DType::kBFloat16:
      return 8;
    case DType::kFloat32:
      return 24;
    case DType::kFloat64:
      return 53;
    case DType::kUInt8:
      return 8;
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
      return static_cast<int>(8 * size_of(t)) - 1;
  }
  __builtin_unreachable();
}

int64_t largest_integer(DType t) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  if (t == DType::kFloat16 || is_float8(t)) return static_cast<int64_t>(largest_finite(t));
  return is_floating(t) || t == DType::kInt64 ? kMax : (int64_t{1} << integer_bits(t)) - 1;
}
int64_t smallest_integer(DType t) {
  if (t == DType::kBool || t == DType::kUInt8) return 0;
  return is_floating(t) ? -largest_integer(t) : -largest_integer(t) - 1;
}

// The largest integer not above v, or the smallest not below it, that a significand of `bits` holds.
int64_t representable(int64_t v, int bits, bool down) {
  const uint64_t magnitude = v < 0 ? uint64_t{0} - static_cast<uint64_t>(v) : static_cast<uint64_t>(v);
  const int spare = std::bit_width(magnitude) - bits;
  if (spare <= 0) return v;
  const uint64_t step = uint64_t{1} << spare, cut = magnitude / step * step;
  const uint64_t kept = cut == magnitude || (v < 0) != down ? cut : cut + step;
  return static_cast<int64_t>(v < 0 ? uint64_t{0} - kept : kept);
}

// [low, high) in the integers a dtype holds.
struct IntegerRange {
  int64_t low, high;

  IntegerRange(DType t, int64_t from, int64_t to) : low(from), high(to) {
    DS_CHECK(low < high, "random_ expects 'from' to be less than 'to', but got from=", low, " >= to=", high);
    DS_CHECK(low >= smallest_integer(t) && low <= largest_integer(t), "from is out of bounds for ", name_of(t));
    DS_CHECK(high - 1 >= smallest_integer(t) && high - 1 <= largest_integer(t), "to - 1 is out of bounds for ",
             name_of(t));
    if (!is_floating(t)) return;
    low = representable(low, integer_bits(t), false);  // rounding may not leave the range
    high = representable(high - 1, integer_bits(t), true);
    DS_CHECK(low <= high,
             "random_ expects 'from' casted to dtype to be less than 'to' casted to dtype, but got from=", from,
             ", to=", to, " for ", name_of(t));
    if (high < std::numeric_limits<int64_t>::max()) ++high;
  }
  // The end of random_() and random_(from): all of an integer dtype, the exact integers of a floating one. One value
  // short for int64, whose end has no int64.
  static int64_t full_end(DType t) {
    if (is_floating(t)) return (int64_t{1} << integer_bits(t)) + 1;
    return t == DType::kInt64 ? largest_integer(t) : largest_integer(t) + 1;
  }
};

void fill_integers(int64_t low, int64_t high, Inputs in, Tensor& out) {
  const IntegerRange range(out.dtype(), low, high);
  kernels::randint(out.view(), state_of(in), range.low, range.high);
}

void check_std(double std) { DS_CHECK(std >= 0, "normal expects std >= 0.0, but found std ", std); }

}  // namespace

#define DS_RANDOM_OPTIONS \
  "*, dtype? dtype=None, device? device=None, bool requires_grad=False, Generator? generator=None"

// --- uniform and normal numbers of a given size

#define DS_RANDOM_CREATE(S, name, what, fill)                                                                          \
  struct S {                                                                                                           \
    Dims size;                                                                                                         \
    Opt<DType> dtype;                                                                                                  \
    static constexpr OpInfo info = create_info(#name "(int[]* size, " DS_RANDOM_OPTIONS ") -> Tensor", what);          \
    bool operator==(const S&) const = default;                                                                         \
    Meta infer(Inputs) const { return {dtype.value_or(default_dtype()), size}; }                                       \
    void eval(Inputs in, Tensor& out) const { fill; }                                                                  \
  };                                                                                                                   \
  DS_OP(S);                                                                                                            \
  Tensor name(const Dims& size, DType dtype) { return apply(S{size, dtype}, Tensor()); }                               \
  struct S##Like {                                                                                                     \
    Opt<DType> dtype;                                                                                                  \
    static constexpr OpInfo info =                                                                                     \
        create_info(#name "_like(Tensor input, " DS_RANDOM_OPTIONS ") -> Tensor", what " Of input's size and dtype."); \
    bool operator==(const S##Like&) const = default;                                                                   \
    Meta infer(Inputs in) const { return {dtype.value_or(in[0].dtype()), in[0].sizes()}; }                             \
    void eval(Inputs in, Tensor& out) const { fill; }                                                                  \
  };                                                                                                                   \
  DS_OP(S##Like);
DS_RANDOM_CREATE(Rand, rand, "Uniform on [0, 1).", kernels::uniform(out.view(), state_of(in), 0, 1))
DS_RANDOM_CREATE(Randn, randn, "Standard normal.", kernels::normal(out.view(), state_of(in), 0, 1))
#undef DS_RANDOM_CREATE

struct NormalOfSize {
  double mean, std;
  Dims size;
  Opt<DType> dtype;
  static constexpr OpInfo info =
      create_info("normal(float mean, float std, int[] size, " DS_RANDOM_OPTIONS ") -> Tensor",
                  "Normal with one mean and standard deviation.");
  bool operator==(const NormalOfSize&) const = default;
  Meta infer(Inputs) const {
    check_std(std);
    return {dtype.value_or(default_dtype()), size};
  }
  void eval(Inputs in, Tensor& out) const { kernels::normal(out.view(), state_of(in), mean, std); }
};
DS_OP(NormalOfSize);

// The standard deviations of normal(), once they are known to be none below zero: an op, since it looks at values.
struct NormalStd {
  static constexpr OpInfo info{.schema = "_normal_std(Tensor std) -> Tensor",
                               .doc = "Refuses negative numbers.",
                               .differentiable = false,
                               .refuses_values = true,
                               .shown = Shown::kHidden};
  bool operator==(const NormalStd&) const = default;
  Meta infer(Inputs in) const { return in[0].meta(); }
  void eval(Inputs in, Tensor& out) const {
    const Tensor& std = in[0];
    if (std.numel() == 0) return;
    const Tensor least = Tensor::empty({}, std.dtype());
    kernels::reduce(kernels::ReduceOp::kMin, keepdim_view(least, std.sizes(), ~0u), std.view());
    const RecorderPause reading;
    DS_CHECK(least.item().to_double() >= 0, "normal expects all elements of std >= 0.0");
    kernels::copy(out.view(), std.view());
  }
};
DS_OP(NormalStd);

// Numbers arrive as wrapped tensors: this is normal(Tensor, Tensor), normal(Tensor, float) and normal(float, Tensor).
DS_BODY(NormalOfTensors,
        "normal.Tensor(Tensor|Number mean, Tensor|Number std=1, *, Generator? generator=None) -> Tensor",
        "Normal with a mean and standard deviation for every element; no gradient flows to them.", false, kFunction, ) {
  const bool number_mean = in[0].cell()->wrapped_number, number_std = in[1].cell()->wrapped_number;
  const Tensor mean = number_mean ? in[0] : detach(in[0]);
  DS_CHECK_AS(TypeError, !number_mean || !number_std,
              "normal(): the argument 'size' is required when mean and std are numbers");
  if (number_std) check_std(in[1].item().to_double());
  const Tensor std = number_std ? in[1] : apply(NormalStd{}, detach(in[1]));
  const Dims sizes = broadcast_sizes("normal", mean.sizes(), std.sizes());
  const DType dtype = number_mean ? std.dtype() : mean.dtype();
  const Tensor unit = apply(NormalOfSize{0, 1, sizes, dtype}, in[2]);
  return to_dtype(unit * std + mean, dtype);
}

// --- integers

struct RandintLow {
  int64_t low, high;
  Dims size;
  Opt<DType> dtype;
  static constexpr OpInfo info =
      create_info("randint.low(int low, int high, int[] size, " DS_RANDOM_OPTIONS ") -> Tensor",
                  "Uniform integers of [low, high), int64 by default.");
  bool operator==(const RandintLow&) const = default;
  Meta infer(Inputs) const { return {dtype.value_or(DType::kInt64), size}; }
  void eval(Inputs in, Tensor& out) const { fill_integers(low, high, in, out); }
};
DS_OP(RandintLow);

DS_BODY(Randint, "randint(int high, int[] size, " DS_RANDOM_OPTIONS ") -> Tensor",
        "Uniform integers of [0, high), int64 by default.", false, kFunction, int64_t high;
        Dims size; Opt<DType> dtype;) {
  return apply(RandintLow{0, high, size, dtype}, in[0]);
}
DS_BODY(RandintLikeLow, "randint_like.low(Tensor input, int low, int high, " DS_RANDOM_OPTIONS ") -> Tensor",
        "Uniform integers of [low, high), of input's size and dtype.", false, kFunction, int64_t low;
        int64_t high; Opt<DType> dtype;) {
  return apply(RandintLow{low, high, in[0].sizes(), dtype.value_or(in[0].dtype())}, in[1]);
}
DS_BODY(RandintLike, "randint_like(Tensor input, int high, " DS_RANDOM_OPTIONS ") -> Tensor",
        "Uniform integers of [0, high), of input's size and dtype.", false, kFunction, int64_t high;
        Opt<DType> dtype;) {
  return apply(RandintLow{0, high, in[0].sizes(), dtype.value_or(in[0].dtype())}, in[1]);
}

struct Randperm {
  int64_t n;
  Opt<DType> dtype;
  static constexpr OpInfo info =
      create_info("randperm(int n, " DS_RANDOM_OPTIONS ") -> Tensor", "A random order of 0 … n - 1, int64 by default.");
  bool operator==(const Randperm&) const = default;
  Meta infer(Inputs) const {
    const DType t = dtype.value_or(DType::kInt64);
    DS_CHECK(n >= 0, "Trying to create tensor with negative dimension ", n, ": [", n, "]");
    DS_CHECK(n <= IntegerRange::full_end(t), "n cannot be greater than ", IntegerRange::full_end(t), " for ",
             name_of(t), " type.");
    return {t, {n}};
  }
  void eval(Inputs in, Tensor& out) const {
    const Tensor order = out.dtype() == DType::kInt64 ? out : Tensor::empty({n}, DType::kInt64);
    kernels::random_permutation(order.data<int64_t>(), n, state_of(in));
    if (!order.is(out)) kernels::copy(out.view(), order.view());
  }
};
DS_OP(Randperm);

// --- draws with given probabilities

struct BernoulliFill {
  static constexpr OpInfo info =
      fill_info("_bernoulli_fill(Tensor input, Tensor|Number p, *, Generator? generator=None) -> Tensor",
                "1 with probability p, else 0, of input's size and dtype.", false);
  bool operator==(const BernoulliFill&) const = default;
  Meta infer(Inputs in) const {
    const Tensor& p = in[1];
    if (!is_floating(p.dtype()))
      fail<NotImplementedError>("\"bernoulli\" not implemented for '", name_of(p.dtype()), "' probabilities");
    DS_CHECK(broadcast_sizes("bernoulli_", in[0].sizes(), p.sizes()) == in[0].sizes(),
             "bernoulli_: probabilities of shape ", p.sizes(), " do not broadcast to ", in[0].sizes());
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const { kernels::bernoulli(out.view(), in[1].view_as(out.sizes()), state_of(in)); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0]), c.need(1) ? zeros_like(c.in[1]) : Tensor()}; }
};
DS_OP(BernoulliFill);

namespace {
Tensor probability(double p) {
  DS_CHECK(p >= 0 && p <= 1, "bernoulli_ expects p to be in [0, 1], but got p=", p);
  return scalar(p);
}
}  // namespace

DS_BODY(Bernoulli, "bernoulli(Tensor input, *, Generator? generator=None) -> Tensor",
        "1 with the probability an element of input gives, else 0; no gradient flows to input.", false, kBoth, ) {
  const Tensor p = detach(in[0]);
  return apply(BernoulliFill{}, p, p, in[1]);
}
DS_BODY(BernoulliP, "bernoulli.p(Tensor input, float p, *, Generator? generator=None) -> Tensor",
        "1 with probability p, else 0, of input's size and dtype.", false, kBoth, double p;) {
  return apply(BernoulliFill{}, detach(in[0]), probability(p), in[1]);
}
// Not the in-place form of bernoulli(input), whose probabilities are input itself.
DS_BODY(BernoulliInPlace, "bernoulli_(Tensor input, Tensor|Number p=0.5, *, Generator? generator=None) -> Tensor",
        "Fills the tensor with 1 with probability p (a number or a tensor), else 0.", false, kMethod, ) {
  const BernoulliFill op;
  const Tensor inputs[] = {in[0], in[1].cell()->wrapped_number ? probability(in[1].item().to_double()) : in[1], in[2]};
  dispatch_inplace(op_def<BernoulliFill>(), &op, inputs);
  return in[0];
}

struct Multinomial {
  int64_t num_samples;
  bool replacement = false;
  static constexpr OpInfo info{
      .schema =
          "multinomial(Tensor input, int num_samples, bool replacement=False, *, Generator? generator=None) -> Tensor",
      .doc = "Indices drawn with the weights of each row, int64.",
      .saves = Saves::kNone,
      .differentiable = false,
      .random = true};
  bool operator==(const Multinomial&) const = default;
  Meta infer(Inputs in) const {
    const Tensor& w = in[0];
    DS_CHECK(w.dim() == 1 || w.dim() == 2, "prob_dist must be 1 or 2 dim");
    DS_CHECK(is_floating(w.dtype()),
             "multinomial only supports floating-point dtypes for input, got: ", name_of(w.dtype()));
    DS_CHECK(num_samples > 0, "cannot sample n_sample <= 0 samples");
    DS_CHECK(replacement || num_samples <= w.size(-1),
             "cannot sample n_sample > prob_dist.size(-1) samples without replacement");
    Dims sizes = w.sizes();
    sizes.back() = num_samples;
    return {DType::kInt64, sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::multinomial(as_rows(out.view()), as_rows(in[0].view()), state_of(in), replacement);
  }

 private:
  static View as_rows(View v) {
    if (v.ndim() == 2) return v;
    v.sizes.insert(0, 1);
    v.strides.insert(0, 0);
    return v;
  }
};
DS_OP(Multinomial);

// --- dropout

struct DropoutMask {
  double p;
  static constexpr OpInfo info{.schema = "_dropout_mask(Tensor input, float p, *, Generator? generator=None) -> Tensor",
                               .doc = "0 with probability p, else 1 / (1 - p), of input's size and dtype.",
                               .saves = Saves::kNone,
                               .differentiable = false,
                               .random = true,
                               .shown = Shown::kHidden};
  bool operator==(const DropoutMask&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(p >= 0 && p < 1, "_dropout_mask: p must be in [0, 1), got ", p);
    DS_CHECK(is_floating(in[0].dtype()), "dropout(): expected a floating point input, got ", name_of(in[0].dtype()));
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    const Tensor keep = scalar(1 - p), scale = scalar(1 / (1 - p));
    kernels::bernoulli(out.view(), keep.view_as(out.sizes()), state_of(in));
    const View views[] = {out.view(), scale.view_as(out.sizes())};
    kernels::pointwise(kernels::Pointwise::kMul, out.dtype(), out.view(), views);
  }
};
DS_OP(DropoutMask);
Tensor dropout_mask(const Tensor& input, double p, const Tensor& state) { return apply(DropoutMask{p}, input, state); }

DS_BODY(DropoutOp, "dropout(Tensor input, float p=0.5, bool train=True) -> Tensor",
        "Elements zeroed with probability p, the others scaled by 1 / (1 - p); input itself outside training "
        "(Srivastava et al. 2014).",
        false, kFunctional, double p;
        bool train;) {
  DS_CHECK(p >= 0 && p <= 1, "dropout probability has to be between 0 and 1, but got ", p);
  if (p == 0 || !train || in[0].numel() == 0) return in[0];
  if (p == 1) return in[0] * 0.0;
  return in[0] * apply(DropoutMask{p}, in[0], Tensor());
}
Tensor dropout(const Tensor& input, double p, bool train) { return DropoutOp{p, train}.body({&input, 1}); }

// --- in-place fills: uniform_, normal_, exponential_, random_

struct Uniform {
  double from = 0, to = 1;
  static constexpr OpInfo info =
      fill_info("uniform(Tensor input, float from=0, float to=1, *, Generator? generator=None) -> Tensor",
                "Uniform on [from, to).");
  bool operator==(const Uniform&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(from <= to, "uniform_ expects to return a [from, to) range, but found from=", from, " > to=", to);
    const double limit = largest_finite(in[0].dtype());
    DS_CHECK(to - from <= limit && std::abs(from) <= limit && std::abs(to) <= limit,
             "uniform_ expects from, to and to - from within the range of ", name_of(in[0].dtype()),
             ", but found from=", from, " and to=", to);
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const { kernels::uniform(out.view(), state_of(in), from, to); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0])}; }
};
DS_OP(Uniform);

struct NormalFill {
  double mean = 0, std = 1;
  static constexpr OpInfo info =
      fill_info("_normal_fill(Tensor input, float mean=0, float std=1, *, Generator? generator=None) -> Tensor",
                "Normal, of input's size and dtype.", false);
  bool operator==(const NormalFill&) const = default;
  Meta infer(Inputs in) const {
    check_std(std);
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const { kernels::normal(out.view(), state_of(in), mean, std); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0])}; }
};
DS_OP(NormalFill);
// Not the in-place form of normal(mean, std), whose first argument is the mean.
DS_BODY(NormalInPlace, "normal_(Tensor input, float mean=0, float std=1, *, Generator? generator=None) -> Tensor",
        "Fills the tensor with normal numbers.", false, kMethod, double mean;
        double std;) {
  const NormalFill op{mean, std};
  dispatch_inplace(op_def<NormalFill>(), &op, in);
  return in[0];
}

struct Exponential {
  double lambd = 1;
  static constexpr OpInfo info =
      fill_info("exponential(Tensor input, float lambd=1, *, Generator? generator=None) -> Tensor",
                "Exponential with rate lambd.");
  bool operator==(const Exponential&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(is_floating(in[0].dtype()),
             "Exponential distribution is a continuous probability distribution. dtype must be a floating "
             "point but you specified ",
             name_of(in[0].dtype()));
    DS_CHECK(lambd > 0, "exponential_ expects lambda > 0.0, but found lambda=", lambd);
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const { kernels::exponential(out.view(), state_of(in), lambd); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0])}; }
};
DS_OP(Exponential);

struct RandomFrom {
  int64_t from;
  Opt<int64_t> to;
  static constexpr OpInfo info =
      fill_info("random.from(Tensor input, int from, int? to, *, Generator? generator=None) -> Tensor",
                "Uniform integers of [from, to), or up to the dtype's last for None.");
  bool operator==(const RandomFrom&) const = default;
  Meta infer(Inputs in) const { return in[0].meta(); }
  void eval(Inputs in, Tensor& out) const {
    fill_integers(from, to ? *to : IntegerRange::full_end(out.dtype()), in, out);
  }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0])}; }
};
DS_OP(RandomFrom);

struct RandomTo {
  int64_t to;
  static constexpr OpInfo info = fill_info("random.to(Tensor input, int to, *, Generator? generator=None) -> Tensor",
                                           "Uniform integers of [0, to).");
  bool operator==(const RandomTo&) const = default;
  Meta infer(Inputs in) const { return in[0].meta(); }
  void eval(Inputs in, Tensor& out) const { fill_integers(0, to, in, out); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0])}; }
};
DS_OP(RandomTo);

struct RandomAll {
  static constexpr OpInfo info =
      fill_info("random(Tensor input, *, Generator? generator=None) -> Tensor",
                "Uniform non-negative integers: all of an integer dtype, the exact ones of a floating dtype.");
  bool operator==(const RandomAll&) const = default;
  Meta infer(Inputs in) const { return in[0].meta(); }
  void eval(Inputs in, Tensor& out) const { fill_integers(0, IntegerRange::full_end(out.dtype()), in, out); }
  Grads vjp(const Vjp& c) const { return {zeros_like(c.in[0])}; }
};
DS_OP(RandomAll);

}  // namespace deepseek
