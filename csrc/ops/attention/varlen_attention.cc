// Attention within sequences that are packed one after another: a fused op, its gradient, and what defines them in
// plain ops. Second derivatives go through the latter.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention/attention_packed.h"
#include "kernels/attention/attention_plain.h"
#include "ops/attention/attention.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

constexpr auto kName = "varlen_attention: ";

// Where sequences start, and the end of the last.
using Starts = std::vector<int64_t>;

Starts starts_of(const Tensor& cu_seq, int64_t tokens, const char* name) {
  const Tensor all = dense(cu_seq, DType::kInt64);
  const Starts starts(all.data<int64_t>(), all.data<int64_t>() + all.numel());
  const bool rises =
      starts.size() > 1 && starts[0] == 0 && starts.back() == tokens && std::is_sorted(starts.begin(), starts.end());
  constexpr size_t kShown = 8;
  std::string got;
  for (size_t i = 0; !rises && i < std::min(starts.size(), kShown); ++i)
    got += (i > 0 ? ", " : "") + std::to_string(starts[i]);
  DS_CHECK_AS(ValueError, rises, kName, name, " must rise from 0 to the number of packed tokens, ", tokens, ", got [",
              got, starts.size() > kShown ? ", ..." : "", "]");
  return starts;
}

struct Sequences {
  Starts q, k;
  Sequences(const Tensor& query, const Tensor& key, const Tensor& cu_q, const Tensor& cu_k)
      : q(starts_of(cu_q, query.size(0), "cu_seq_q")), k(starts_of(cu_k, key.size(0), "cu_seq_k")) {
    DS_CHECK_AS(ValueError, q.size() == k.size(), kName, "cu_seq_q has ", q.size() - 1, " sequences, cu_seq_k has ",
                k.size() - 1, "; each query sequence needs its key sequence");
  }
  size_t count() const { return q.size() - 1; }
};

// Tokens start..end-1 of a packed [T, H, D] as [1, H, L, D].
View sequence(const View& packed, const Starts& starts, size_t i) {
  View v = packed;
  v.data = packed.at(starts[i] * packed.strides[0]);
  v.sizes = {1, packed.sizes[1], starts[i + 1] - starts[i], packed.sizes[2]};
  v.strides = {0, packed.strides[1], packed.strides[0], packed.strides[2]};
  return v;
}

// Numbers [H, T] as the kernels want them: [1, H, L] of each sequence, contiguous.
class PackedRows {
 public:
  PackedRows(int64_t heads, int64_t tokens, DType dtype)
      : heads_(heads), tokens_(tokens), memory_(Tensor::empty({heads * tokens}, dtype)) {}
  View of(const Starts& starts, size_t i) const {
    const int64_t n = starts[i + 1] - starts[i];
    const View all = memory_.view();
    return {all.at(heads_ * starts[i]), all.dtype, {1, heads_, n}, {heads_ * n, n, 1}};
  }
  // [H, T] of the same dtype from here or to here, a sequence at a time.
  void copy(const View& rows, const Starts& starts, bool from) const {
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      const View own = of(starts, i);
      View part = rows;
      part.data = rows.at(starts[i] * rows.strides[1]);
      part.sizes = own.sizes, part.strides = {0, rows.strides[0], rows.strides[1]};
      from ? kernels::copy(own, part) : kernels::copy(part, own);
    }
  }

 private:
  int64_t heads_, tokens_;
  Tensor memory_;
};

// Zeros, made here: an op would be recorded.
Tensor blank(const Dims& sizes, DType dtype) {
  const Tensor t = Tensor::empty(sizes, dtype);
  if (t.numel() > 0) std::memset(t.data_ptr(), 0, static_cast<size_t>(t.numel()) * size_of(dtype));
  return t;
}

struct VarlenRule {
  bool is_causal;
  double scale;
  int64_t window;  // 0: all keys
  double softcap;  // 0: none

  void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_q, const Tensor& cu_k,
             const Tensor& sinks) const {
    DS_CHECK(q.dim() == 3 && k.dim() == 3 && v.dim() == 3, kName,
             "query, key and value must have 3 dims [tokens, heads, size], got ", q.sizes(), ", ", k.sizes(), " and ",
             v.sizes());
    check_attention_dtypes(kName, q, k, v);
    DS_CHECK(v.size(0) == k.size(0) && v.size(1) == k.size(1) && k.size(2) == q.size(2), kName,
             "shapes do not match: query ", q.sizes(), " wants a key [S, K, ", q.size(2),
             "] and a value [S, K, V]; got ", k.sizes(), " and ", v.sizes());
    DS_CHECK(k.size(1) > 0 && q.size(1) % k.size(1) == 0, kName, k.size(1), " key heads must divide ", q.size(1),
             " query heads");
    for (const Tensor* cu : {&cu_q, &cu_k})
      DS_CHECK(cu->dim() == 1 && is_integral(cu->dtype()), kName,
               "cu_seq_q and cu_seq_k must be 1-d tensors of integers, got ", name_of(cu->dtype()), " ", cu->sizes());
    check_attention_positions(kName, q.size(0), k.size(0), window, 0);
    check_attention_sinks(kName, sinks, q.size(1));
    DS_CHECK(softcap >= 0, kName, "softcap must not be negative, got ", softcap);
  }

  kernels::Attention args(const View& q, const View& k, const View& v, const Tensor& sinks, const Sequences& s,
                          size_t i) const {
    kernels::Attention a;
    a.q = sequence(q, s.q, i), a.k = sequence(k, s.k, i), a.v = sequence(v, s.k, i);
    if (sinks.defined()) a.sinks = sinks.view();
    a.scale = scale, a.softcap = softcap, a.causal = is_causal, a.window = std::min(window, kMostPosition);
    return a;
  }

  // bool [T, S]: which keys a query sees.
  Tensor mask(const Tensor& q, const Tensor& k, const Tensor& cu_q, const Tensor& cu_k) const {
    const auto places = [](const Tensor& cu_seq, int64_t tokens) {  // sequence of each token, and position in it
      const Tensor cu = to_dtype(cu_seq, DType::kInt64), at = arange(tokens);
      const Tensor number = sum(to_dtype(ge(unsqueeze(at, 1), slice(cu, 0, 1, cu.size(0))), DType::kInt64), Dims{1});
      return std::pair(number, at - index_select(cu, 0, number));
    };
    const auto [query, i] = places(cu_q, q.size(0));
    const auto [key, j] = places(cu_k, k.size(0));
    const Tensor rows = unsqueeze(i, 1);
    const int64_t reach = std::min(window, kMostPosition);
    Tensor seen = eq(unsqueeze(query, 1), key);
    if (is_causal) seen = logical_and(seen, le(j, rows));
    if (window > 0) seen = logical_and(seen, gt(j, rows - reach));
    if (window > 0 && !is_causal) seen = logical_and(seen, lt(j, rows + reach));
    return seen;
  }
  TensorList composite(Inputs in) const {
    const auto heads_first = [](const Tensor& t) { return unsqueeze(transpose(t, 0, 1), 0); };
    const TensorList out = attention_in_plain_ops(heads_first(in[0]), heads_first(in[1]), heads_first(in[2]),
                                                  mask(in[0], in[1], in[3], in[4]), in[5], scale, softcap);
    return {transpose(squeeze(out[0], 0), 0, 1), squeeze(out[1], 0)};
  }
};

#define DS_VARLEN_FIELDS \
  bool is_causal;        \
  double scale;          \
  int64_t window;        \
  double softcap;        \
  VarlenRule rule() const { return {is_causal, scale, window, softcap}; }
#define DS_VARLEN_ATTRIBUTES "bool is_causal, float scale, int window, float softcap"

}  // namespace

// Gradients of query, key, value and sinks (the last is empty without sinks).
struct VarlenBackward {
  DS_VARLEN_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_varlen_attention_backward(Tensor? grad, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, Tensor "
          "cu_seq_q, Tensor cu_seq_k, Tensor? sinks, Tensor output, Tensor lse, " DS_VARLEN_ATTRIBUTES
          ") -> (Tensor dq, Tensor dk, Tensor dv, Tensor dsinks)",
      .doc = "Gradients of packed attention with respect to query, key, value and sinks.",
      .shown = Shown::kHidden};
  bool operator==(const VarlenBackward&) const = default;
  std::array<Meta, 4> infer(Inputs in) const {
    rule().check(in[2], in[3], in[4], in[5], in[6], in[7]);
    return {in[2].meta(), in[3].meta(), in[4].meta(), in[7].defined() ? in[7].meta() : Meta{in[2].dtype(), {0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const;
  TensorList composite(Inputs in) const;
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(VarlenBackward);

struct VarlenForward {
  DS_VARLEN_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_varlen_attention(Tensor query, Tensor key, Tensor value, Tensor cu_seq_q, Tensor cu_seq_k, Tensor? "
          "sinks, " DS_VARLEN_ATTRIBUTES ") -> (Tensor out, Tensor lse)",
      .doc =
          "Attention within packed sequences: [T, H, E], [S, K, E] and [S, K, V] give [T, H, V] and the logarithm of "
          "the denominators, [H, T].",
      .autocast = Autocast::kLower,
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const VarlenForward&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    rule().check(in[0], in[1], in[2], in[3], in[4], in[5]);
    const Tensor& q = in[0];
    return {Meta{q.dtype(), {q.size(0), q.size(1), in[2].size(2)}},
            Meta{computing_type(q.dtype()), {q.size(1), q.size(0)}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const DType t = in[0].dtype(), c = computing_type(t);
    const Sequences s(in[0], in[1], in[3], in[4]);
    const Tensor q = dense_rows(in[0], t), k = dense_rows(in[1], t), v = dense_rows(in[2], t),
                 sinks = in[5].defined() ? dense(in[5], c) : Tensor();
    const PackedRows lse(q.size(1), q.size(0), c);
    std::vector<kernels::AttentionTask> tasks;
    for (size_t i = 0; i < s.count(); ++i)
      tasks.push_back(
          {rule().args(q.view(), k.view(), v.view(), sinks, s, i), sequence(out[0].view(), s.q, i), lse.of(s.q, i)});
    if (t == DType::kFloat64)
      for (const auto& task : tasks) kernels::attention_forward_plain(task.a, task.out, task.lse);
    else
      kernels::attention_forward(tasks);
    lse.copy(out[1].view(), s.q, false);
  }
  Grads vjp(const Vjp& c) const {
    TensorList in{c.grad[0], c.grad[1]};
    for (const Tensor& t : c.in) in.push_back(t);
    in.push_back(detach(c.out[0])), in.push_back(detach(c.out[1]));
    const TensorList g = apply_list(VarlenBackward{is_causal, scale, window, softcap}, in);
    return {g[0], g[1], g[2], Tensor(), Tensor(), c.in[5].defined() ? g[3] : Tensor()};
  }
  TensorList composite(Inputs in) const { return rule().composite(in); }
};
DS_OP(VarlenForward);

void VarlenBackward::eval(Inputs in, std::span<Tensor> out) const {
  const DType t = in[2].dtype(), c = computing_type(t);
  const Sequences s(in[2], in[3], in[5], in[6]);
  const Tensor q = dense_rows(in[2], t), k = dense_rows(in[3], t), v = dense_rows(in[4], t),
               sinks = in[7].defined() ? dense(in[7], c) : Tensor(), y = dense_rows(in[8], t),
               grad = in[0].defined() ? dense_rows(in[0], t) : blank(y.sizes(), t);
  const int64_t heads = q.size(1), tokens = q.size(0);
  const PackedRows lse(heads, tokens, c), delta(heads, tokens, c), by_lse(heads, tokens, c);
  lse.copy(in[9].view(), s.q, true);
  if (in[1].defined()) by_lse.copy(dense(in[1], c).view(), s.q, true);
  std::vector<kernels::AttentionBackwardTask> tasks;
  for (size_t i = 0; i < s.count(); ++i) {
    const auto at_q = [&](const Tensor& x) { return sequence(x.view(), s.q, i); };
    const auto at_k = [&](const Tensor& x) { return sequence(x.view(), s.k, i); };
    kernels::attention_delta(at_q(grad), at_q(y), in[1].defined() ? by_lse.of(s.q, i) : View(), delta.of(s.q, i));
    tasks.push_back({rule().args(q.view(), k.view(), v.view(), sinks, s, i), at_q(grad), lse.of(s.q, i),
                     delta.of(s.q, i), at_q(out[0]), at_k(out[1]), at_k(out[2])});
  }
  if (sinks.defined()) {  // of all sequences in order
    const Tensor total = blank(sinks.sizes(), c), own = Tensor::empty(sinks.sizes(), c);
    for (const auto& task : tasks) {
      kernels::attention_sink_gradient(sinks.view(), task.lse, task.delta, own.view());
      const auto add = [&](auto* sum, const auto* part) {
        for (int64_t h = 0; h < heads; ++h) sum[h] += part[h];
      };
      t == DType::kFloat64 ? add(total.data<double>(), own.data<double>())
                           : add(total.data<float>(), own.data<float>());
    }
    kernels::copy(out[3].view(), total.view());
  }
  if (t == DType::kFloat64)
    for (const auto& x : tasks) kernels::attention_backward_plain(x.a, x.grad_out, x.lse, x.delta, x.dq, x.dk, x.dv);
  else
    kernels::attention_backward(tasks);
}

TensorList VarlenBackward::composite(Inputs in) const {
  const VarlenForward forward{is_causal, scale, window, softcap};
  const uint64_t needs = 0b111 | (in[7].defined() ? 0b100000 : 0);
  const Grads g = vjp_by_composite(forward, Vjp{in.subspan(2, 6), in.subspan(8, 2), in.first(2), needs});
  return {or_zeros(g[0], in[2]), or_zeros(g[1], in[3]), or_zeros(g[2], in[4]),
          in[7].defined() ? or_zeros(g[5], in[7]) : zeros({0}, in[2].dtype())};
}

DS_BODY(VarlenAttention,
        "varlen_attention(Tensor query, Tensor key, Tensor value, Tensor cu_seq_q, Tensor cu_seq_k, *, Tensor? "
        "sinks=None, bool is_causal=False, float? scale=None, int? window=None, float? softcap=None, bool "
        "enable_gqa=False) -> Tensor",
        "attention within each of several sequences that are packed one after another.", false, kFunctional,
        bool is_causal;
        Opt<double> scale; Opt<int64_t> window; Opt<double> softcap; bool enable_gqa;) {
  const Tensor &q = in[0], &k = in[1];
  DS_CHECK(q.dim() == 3 && k.dim() == 3, kName, "query and key must have 3 dims [tokens, heads, size], got ", q.sizes(),
           " and ", k.sizes());
  DS_CHECK(enable_gqa || k.size(1) == q.size(1), kName, "key has ", k.size(1), " heads, query has ", q.size(1),
           "; pass enable_gqa=True to share each key head among several query heads");
  DS_CHECK(!window || *window > 0, kName, "window must be positive, got ", window.value_or(0));
  DS_CHECK(!softcap || *softcap > 0, kName, "softcap must be positive, got ", softcap.value_or(0));
  const double factor = scale ? *scale : 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  return apply_list(VarlenForward{is_causal, factor, window.value_or(0), softcap.value_or(0)}, in)[0];
}

}  // namespace deepseek
