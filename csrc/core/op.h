// One op, one definition. An op is a trivially copyable struct whose fields are its attributes in schema order:
//   info (schema, doc, properties), operator==, and one of
//     infer + eval   a kernel: infer is the only shape and dtype rule
//     view / views   results that share the input's memory
//     body           a composite in public ops
// plus vjp in public ops, unless info says `.differentiable = false`. Fused ops add `composite`, which defines them.
// An op whose schema has written arguments, "Tensor(a!) x", changes these in eval: an optimizer's step.
#pragma once

#include <array>
#include <concepts>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "core/mode.h"
#include "core/node.h"
#include "core/schema/fields.h"
#include "core/schema/schema.h"
#include "core/tensor.h"

namespace deepseek {

// A set of inputs or outputs: bit i stands for number i, the highest bit for all that follow too.
using SlotMask = uint32_t;
inline constexpr SlotMask kAllSlots = ~SlotMask{0}, kFirstSlot = 1, kLaterSlots = kAllSlots ^ kFirstSlot;
template <class... Number>
constexpr SlotMask slots(Number... number) {
  return ((SlotMask{1} << number) | ...);
}
constexpr bool has_slot(SlotMask mask, size_t i) { return mask >> (i < 31 ? i : 31) & 1; }

// The dtype that autocast casts the inputs of an op to. kNone: those of the ops that a body calls are cast instead.
// kOff: those neither.
enum class Autocast : uint8_t { kNone, kLower, kFloat32, kPromote, kOff };

// Which values the vjp reads.
struct Saves {
  SlotMask inputs = 0, outputs = 0;
  bool for_others = false;  // an input only for the gradients of other inputs (products)

  // Bit i of `needs`: input i wants a gradient.
  constexpr bool input(size_t i, uint64_t needs) const {
    const uint64_t itself = i < 64 ? uint64_t{1} << i : 0;
    return has_slot(inputs, i) && (!for_others || (needs & ~itself) != 0);
  }
  constexpr bool output(size_t i) const { return has_slot(outputs, i); }

  static const Saves kNone, kInputs, kOutput, kInputsOutput, kOthers, kRest, kFirst;
};
inline constexpr Saves Saves::kNone = {};
inline constexpr Saves Saves::kInputs = {.inputs = kAllSlots};
inline constexpr Saves Saves::kOutput = {.outputs = kAllSlots};
inline constexpr Saves Saves::kInputsOutput = {.inputs = kAllSlots, .outputs = kAllSlots};
inline constexpr Saves Saves::kOthers = {.inputs = kAllSlots, .for_others = true};
inline constexpr Saves Saves::kRest = {.inputs = kLaterSlots};  // all but the first
inline constexpr Saves Saves::kFirst = {.inputs = kFirstSlot};  // a condition

enum class Shown : uint8_t { kBoth, kFunction, kMethod, kFunctional, kHidden };  // where Python shows it

struct OpInfo {
  const char* schema;
  const char* doc;
  Autocast autocast = Autocast::kNone;
  SlotMask cast_inputs = kAllSlots;  // those that autocast casts
  Saves saves = Saves::kInputs;
  bool differentiable = true;
  bool inplace = false;         // has a name_() form that writes into the first input
  bool elementwise = false;     // an element of the result is made of those at its place: name_() may run in place
  bool writes_part = false;     // eval writes a part of a copy of the first input: name_() may run in place
  bool fills = false;           // one value everywhere: elements of name_()'s target may be the same memory
  bool reads_data = false;      // the result's size depends on values
  bool refuses_values = false;  // of floating inputs; integers may always be out of range
  bool random = false;          // the last input is the generator state int64[2] {seed, offset}
  bool wide_gradient = false;   // gradients come to its node, and are summed there, in the first input's dtype
  Shown shown = Shown::kBoth;
  const char* node = nullptr;  // grad_fn's name where it does not follow from the schema's
};

using Metas = SmallVector<Meta, 2>;
using NoResults = std::array<Meta, 0>;  // what infer says of an op that only writes
using ViewSpecs = SmallVector<ViewSpec, 2>;
using Grads = SmallVector<Tensor, 4>;

// What a vjp sees. Inputs and outputs not saved have sizes and dtype but no data.
struct Vjp {
  Inputs in;
  Inputs out;
  Inputs grad;        // one an output; undefined means zero
  uint64_t needs;     // bit i: input i wants a gradient
  bool last = false;  // saved tensors are dropped after this
  std::span<const Edge> next = {};
  GradientSums* sums = nullptr;
  // The memory of a saved tensor may become a gradient's: besides it only the node, which drops it, has that.
  bool owns(const Tensor& saved) const { return last && saved.storage()->use_count() == 2; }
  bool need(size_t i) const { return i >= 64 || (needs >> i & 1); }
  // What input i's gradient is to be added to, for ops whose own is mostly zeros; undefined: return a tensor of its
  // own.
  Tensor sum_so_far(size_t i, bool contiguous = true) const {
    if (!sums || !need(i)) return {};
    Tensor sum = sums->take(next[i], contiguous);
    if (sum.defined()) sums->add_zeros(next[i]);
    return sum;
  }
};

// The type-erased op: everything derived from the struct.
struct OpDef {
  const OpInfo* info = nullptr;
  Schema schema;
  size_t size = 0;
  std::vector<Field> fields;
  std::vector<char> defaults;  // the struct with the schema's default attributes
  void init(void* op) const {
    if (size > 0) std::memcpy(op, defaults.data(), size);
  }
  bool (*equal)(const void* a, const void* b) = nullptr;
  void (*infer)(const void* op, Inputs in, Metas& out) = nullptr;
  void (*eval)(const void* op, Inputs in, std::span<Tensor> out) = nullptr;
  void (*view)(const void* op, const Tensor& in, ViewSpecs& out) = nullptr;
  void (*body)(const void* op, Inputs in, TensorList& out) = nullptr;
  void (*composite)(const void* op, Inputs in, TensorList& out) = nullptr;
  void (*vjp)(const void* op, const Vjp& c, Grads& out) = nullptr;
  const char* name() const { return schema.name.c_str(); }
};

inline constexpr size_t kMaxOpBytes = 320;

// --- the choke point (dispatch.cc)
void dispatch_op(const OpDef& def, const void* op, Inputs in, TensorList& out);
// Only the kernel, into outputs that are allocated and right: for graphs that were inferred when they were recorded.
void eval_op(const OpDef& def, const void* op, Inputs in, std::span<Tensor> out);
// Reserves random numbers for `count` elements: the state a random op takes as its last input.
Tensor draw_state(int64_t count);

// --- the table (op_table.cc)
void register_op(OpDef& def);
const std::vector<const OpDef*>& op_table();
const OpDef* find_op(std::string_view name);

namespace detail {

template <class Op>
concept HasEval = requires(const Op& o, Inputs in, std::span<Tensor> out, Metas& m) {
  o.infer(in);
  requires requires(Tensor & t) { o.eval(in, t); } || requires {
    o.eval(in, out);
  };
};
template <class Op>
concept HasView = requires(const Op& o, const Tensor& t) {
  { o.view(t) } -> std::same_as<ViewSpec>;
};
template <class Op>
concept HasViews = requires(const Op& o, const Tensor& t) {
  { o.views(t) } -> std::same_as<ViewSpecs>;
};
template <class Op>
concept HasBody = requires(const Op& o, Inputs in) {
  o.body(in);
};
template <class Op>
concept HasVjp = requires(const Op& o, const Vjp& c) {
  { o.vjp(c) } -> std::convertible_to<Grads>;
};
template <class Op>
concept HasComposite = requires(const Op& o, Inputs in) {
  o.composite(in);
};

inline void append(TensorList& out, Tensor t) { out.push_back(std::move(t)); }
template <size_t N>
void append(TensorList& out, std::array<Tensor, N> ts) {
  for (Tensor& t : ts) out.push_back(std::move(t));
}
inline void append(TensorList& out, TensorList ts) { out = std::move(ts); }
inline void append(Metas& out, const Meta& m) { out.emplace_back(m); }
template <size_t N>
void append(Metas& out, const std::array<Meta, N>& ms) {
  for (const Meta& m : ms) out.push_back(m);
}

}  // namespace detail

template <class Op>
concept OpStruct = std::is_trivially_copyable_v<Op> &&
                   sizeof(Op) <= kMaxOpBytes&& std::equality_comparable<Op>&& requires {
  { Op::info } -> std::convertible_to<const OpInfo&>;
};

// The one OpDef of an op struct.
template <OpStruct Op>
const OpDef& op_def() {
  static OpDef* def = [] {
    static_assert(detail::HasEval<Op> || detail::HasView<Op> || detail::HasViews<Op> || detail::HasBody<Op>,
                  "an op needs infer and eval, or view/views, or body");
    static_assert(detail::HasBody<Op> || detail::HasVjp<Op> || !Op::info.differentiable,
                  "an op needs a vjp, or must state .differentiable = false");
    auto* d = new OpDef;
    d->info = &Op::info;
    d->size = std::is_empty_v<Op> ? 0 : sizeof(Op);
    alignas(Op) char fresh[sizeof(Op)];
    new (fresh) Op{};
    d->defaults.assign(fresh, fresh + d->size);
    d->equal = [](const void* a, const void* b) { return *static_cast<const Op*>(a) == *static_cast<const Op*>(b); };
    Op probe{};
    detail::for_each_field(probe, [&]<class T>(T& f) {
      d->fields.push_back({detail::field_kind<T>(),
                           static_cast<uint16_t>(reinterpret_cast<char*>(&f) - reinterpret_cast<char*>(&probe))});
    });
    if constexpr (detail::HasEval<Op>) {
      d->infer = [](const void* op, Inputs in, Metas& out) {
        detail::append(out, static_cast<const Op*>(op)->infer(in));
      };
      d->eval = [](const void* op, Inputs in, std::span<Tensor> out) {
        if constexpr (requires(Tensor & t) { static_cast<const Op*>(op)->eval(in, t); })
          static_cast<const Op*>(op)->eval(in, out[0]);
        else
          static_cast<const Op*>(op)->eval(in, out);
      };
    }
    if constexpr (detail::HasView<Op>)
      d->view = [](const void* op, const Tensor& in, ViewSpecs& out) {
        out.push_back(static_cast<const Op*>(op)->view(in));
      };
    if constexpr (detail::HasViews<Op>)
      d->view = [](const void* op, const Tensor& in, ViewSpecs& out) { out = static_cast<const Op*>(op)->views(in); };
    if constexpr (detail::HasBody<Op>)
      d->body = [](const void* op, Inputs in, TensorList& out) {
        detail::append(out, static_cast<const Op*>(op)->body(in));
      };
    if constexpr (detail::HasComposite<Op>)
      d->composite = [](const void* op, Inputs in, TensorList& out) {
        detail::append(out, static_cast<const Op*>(op)->composite(in));
      };
    if constexpr (detail::HasVjp<Op>)
      d->vjp = [](const void* op, const Vjp& c, Grads& out) { out = static_cast<const Op*>(op)->vjp(c); };
    register_op(*d);
    return d;
  }();
  return *def;
}

#define DS_OP(Op) [[maybe_unused]] static const ::deepseek::OpDef& ds_op_##Op = ::deepseek::op_def<Op>()

template <OpStruct Op>
TensorList apply_list(const Op& op, Inputs in) {
  TensorList out;
  dispatch_op(op_def<Op>(), &op, in, out);
  return out;
}
template <OpStruct Op, class... T>
requires(std::same_as<T, Tensor>&&...) Tensor apply(const Op& op, const T&... in) {
  const BorrowedInputs<sizeof...(T)> inputs(in...);
  TensorList out;
  dispatch_op(op_def<Op>(), &op, inputs, out);
  return std::move(out[0]);
}
template <size_t N, OpStruct Op, class... T>
std::array<Tensor, N> apply_n(const Op& op, const T&... in) {
  const BorrowedInputs<sizeof...(T)> inputs(in...);
  TensorList out;
  dispatch_op(op_def<Op>(), &op, inputs, out);
  std::array<Tensor, N> result;
  for (size_t i = 0; i < N; ++i) result[i] = std::move(out[i]);
  return result;
}

// The gradients of a fused op, by differentiating the composite that defines it (any order). autograd/ does the work.
Grads vjp_by_composite(const OpDef& def, const void* op, const Vjp& c);
template <OpStruct Op>
Grads vjp_by_composite(const Op& op, const Vjp& c) {
  return vjp_by_composite(op_def<Op>(), &op, c);
}

}  // namespace deepseek
