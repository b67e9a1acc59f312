// Mixture-of-experts feed-forward (Shazeer et al. 2017; DeepSeekMoE, Dai et al. 2024): token-expert pairs are sorted by
// expert, each expert is one small dense feed-forward over its tokens. Fused forward and backward; the composites say
// the same in plain ops and give derivatives of higher order.
#include "kernels/moe/moe.h"

#include <limits>

#include "kernels/loops/copy.h"
#include "ops/composite.h"
#include "ops/moe/moe.h"
#include "ops/operands.h"

namespace deepseek {
void check_moe_sizes(const Tensor& x, const Dims& gate, const Dims& up, const Dims& down, const Tensor& ids,
                     const Tensor& weights) {
  DS_CHECK(x.dim() == 2, "moe: input must be [tokens, features], got ", x.sizes());
  DS_CHECK(gate.size() == 3 && gate == up && down.size() == 3 && down[0] == gate[0] && down[1] == gate[2] &&
               down[2] == gate[1] && gate[2] == x.sizes()[1],
           "moe: gate and up must be [E, F, D] and down [E, D, F] for input [T, D]; got ", gate, ", ", up, ", ", down,
           " and ", x.sizes());
  DS_CHECK(ids.dim() == 2 && ids.sizes() == weights.sizes() && ids.sizes()[0] == x.sizes()[0] &&
               ids.dtype() == DType::kInt64,
           "moe: topk_indices (int64) and topk_weights must be [T, K] for input [T, D]; got ", ids.sizes(), " and ",
           weights.sizes());
  DS_CHECK_AS(NotImplementedError, is_floating(x.dtype()) && !is_float8(x.dtype()), "moe: not implemented for ",
              name_of(x.dtype()), "; convert to float32 first");
}

double swiglu_limit(const char* name, const Opt<double>& limit) {
  if (!limit) return std::numeric_limits<double>::infinity();
  DS_CHECK_AS(ValueError, *limit > 0, name, "(): swiglu_limit must be positive or None, got ", *limit);
  return *limit;
}

namespace {

enum : size_t { kX, kGate, kUp, kDown, kIds, kWeights };  // inputs of the forward op
enum : int64_t { kNeedsInput = 1, kNeedsGateUp = 2, kNeedsDown = 4, kNeedsWeights = 8 };

void check_inputs(Inputs in) {
  const Tensor &x = in[kX], &gate = in[kGate], &up = in[kUp], &down = in[kDown], &w = in[kWeights];
  check_moe_sizes(x, gate.sizes(), up.sizes(), down.sizes(), in[kIds], w);
  DS_CHECK(gate.dtype() == x.dtype() && up.dtype() == x.dtype() && down.dtype() == x.dtype(),
           "moe: input and expert weights must have one dtype, got ", name_of(x.dtype()), ", ", name_of(gate.dtype()),
           ", ", name_of(up.dtype()), " and ", name_of(down.dtype()), "; convert them with .to()");
  DS_CHECK(is_floating(w.dtype()) && !is_float8(w.dtype()), "moe: topk_weights must be floating point, got ",
           name_of(w.dtype()));
}

// The inputs as kernels read them.
struct KernelInputs {
  Tensor weights;
  kernels::MoeInputs views;
  kernels::ExpertRows rows;
  KernelInputs(Inputs in, const Opt<double>& limit)
      : weights(dense(in[kWeights], computing_type(in[kX].dtype()))),
        views{in[kX].view(),    in[kGate].view(),   in[kUp].view(),
              in[kDown].view(), weights.data_ptr(), swiglu_limit("moe", limit)},
        rows(kernels::sort_by_expert(in[kIds].view(), in[kGate].sizes()[0])) {}
};

// --- pieces of the composites

// The sorted pairs as tensors, and the range of rows of each expert. Where there are slots without an expert, `place`
// has them one beyond the rows, where results get a row of zeros.
struct SortedPairs {
  kernels::ExpertRows rows;
  Tensor pair, token, place;  // place: where in the sorted rows a pair is
  explicit SortedPairs(Inputs in)
      : rows(kernels::sort_by_expert(in[kIds].view(), in[kGate].sizes()[0])),
        pair(Tensor::empty({rows.rows()}, DType::kInt64)),
        token(Tensor::empty({rows.rows()}, DType::kInt64)),
        place(Tensor::empty({rows.pairs()}, DType::kInt64)) {
    for (const int64_t p : rows.empty) place.data<int64_t>()[p] = rows.rows();
    for (int64_t r = 0; r < rows.rows(); ++r) {
      pair.data<int64_t>()[r] = rows.pair[static_cast<size_t>(r)];
      token.data<int64_t>()[r] = rows.token[static_cast<size_t>(r)];
      place.data<int64_t>()[rows.pair[static_cast<size_t>(r)]] = r;
    }
  }
  Tensor of(const Tensor& sorted, int64_t e) const {
    return slice(sorted, 0, rows.offset[static_cast<size_t>(e)], rows.offset[static_cast<size_t>(e) + 1]);
  }
  Tensor by_pair(const Tensor& sorted) const {
    return index_select(with_zeros(sorted, rows.empty.empty() ? 0 : 1), 0, place);
  }
  // Saved rows: as many as there are pairs.
  Tensor padded(const Tensor& sorted) const { return with_zeros(sorted, static_cast<int64_t>(rows.empty.size())); }
  // The sum over a token's slots, in order.
  Tensor combine(const Tensor& sorted, int64_t tokens) const {
    const Tensor by_pair = reshape(this->by_pair(sorted), {tokens, rows.slots, sorted.sizes()[1]});
    Tensor sum = zeros({tokens, sorted.sizes()[1]}, sorted.dtype());
    for (int64_t s = 0; s < rows.slots; ++s) sum = sum + select(by_pair, 1, s);
    return sum;
  }
  static Tensor with_zeros(const Tensor& sorted, int64_t more) {
    return more ? cat(TensorList{sorted, zeros({more, sorted.sizes()[1]}, sorted.dtype())}, 0) : sorted;
  }
  Tensor weights(Inputs in) const { return unsqueeze(index_select(reshape(in[kWeights], {-1}), 0, pair), 1); }
};

// What SwiGLU sees of the rows of gate and up, and gradients of what it saw as those of the rows.
struct Limited {
  Tensor gate, up;
  Limited(const Tensor& a, const Tensor& b, const Opt<double>& limit)
      : gate(limit ? clamp(a, {}, scalar(*limit)) : a), up(limit ? clamp(b, scalar(-*limit), scalar(*limit)) : b) {}
};
Tensor where_free(const Tensor& grad, const Tensor& row, const Opt<double>& limit) {
  return limit ? where(gt(row, scalar(*limit)), scalar(0.0), grad) : grad;
}

Tensor rows_or_none(const TensorList& parts, int64_t columns, DType dtype) {
  return parts.empty() ? zeros({0, columns}, dtype) : cat(parts, 0);
}

}  // namespace

struct MoeBackward {
  int64_t needs;
  Opt<double> limit;
  static constexpr OpInfo info{
      .schema =
          "_moe_backward(Tensor grad, Tensor input, Tensor gate_weight, Tensor up_weight, Tensor down_weight, "
          "Tensor topk_indices, Tensor topk_weights, Tensor gate_rows, Tensor up_rows, int needs, float? swiglu_limit) "
          "-> (Tensor "
          "input, Tensor gate_weight, Tensor up_weight, Tensor down_weight, Tensor topk_weights)",
      .doc = "Gradients of _moe. Bits of `needs`: input 1, gate and up 2, down 4, topk_weights 8; others are empty.",
      .shown = Shown::kHidden};
  bool operator==(const MoeBackward&) const = default;
  bool need(int64_t bit) const { return (needs & bit) != 0; }
  std::array<Meta, 5> infer(Inputs in) const {
    const Inputs forward = in.subspan(1);
    check_inputs(forward);
    const Meta none{in[1].dtype(), {0}};
    const auto like = [&](size_t i, int64_t bit) {
      return need(bit) ? Meta{forward[i].dtype(), forward[i].sizes()} : none;
    };
    return {like(kX, kNeedsInput), like(kGate, kNeedsGateUp), like(kUp, kNeedsGateUp), like(kDown, kNeedsDown),
            like(kWeights, kNeedsWeights)};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const KernelInputs k(in.subspan(1), limit);
    const DType t = in[1].dtype();
    Tensor weights = out[4];
    if (need(kNeedsWeights) && weights.dtype() != computing_type(t))
      weights = Tensor::empty(out[4].sizes(), computing_type(t));
    const auto to = [&](const Tensor& result, int64_t bit) { return need(bit) ? result.data_ptr() : nullptr; };
    kernels::moe_backward(k.views, k.rows, dense(in[7], t).data_ptr(), dense(in[8], t).data_ptr(), in[0].view(),
                          {to(out[0], kNeedsInput), to(out[1], kNeedsGateUp), to(out[2], kNeedsGateUp),
                           to(out[3], kNeedsDown), to(weights, kNeedsWeights)});
    if (weights.data_ptr() != out[4].data_ptr()) kernels::copy(out[4].view(), weights.view());
  }
  // From the input alone: the rows are functions of it, so derivatives of any order are right.
  TensorList composite(Inputs in) const {
    const Inputs f = in.subspan(1);
    const Tensor &x = f[kX], &gate = f[kGate], &up = f[kUp], &down = f[kDown];
    const SortedPairs sorted(f);
    const Tensor tokens = index_select(x, 0, sorted.token), grads = index_select(in[0], 0, sorted.token),
                 weights = to_dtype(sorted.weights(f), x.dtype());
    TensorList dx, dw, d_gate, d_up, d_down;
    for (int64_t e = 0; e < gate.sizes()[0]; ++e) {
      const Tensor xe = sorted.of(tokens, e), ge = sorted.of(grads, e), we = sorted.of(weights, e);
      const Tensor gate_e = select(gate, 0, e), up_e = select(up, 0, e), down_e = select(down, 0, e);
      const Tensor a = linear(xe, gate_e), b = linear(xe, up_e), r = matmul(ge, down_e);
      const Limited seen(a, b, limit);
      const Tensor hidden = swiglu(seen.gate, seen.up),
                   da = where_free(_swiglu_backward(r * we, seen.gate, seen.up), a, limit),
                   db = where_free(r * we * silu(seen.gate), abs(b), limit);
      dx.push_back(matmul(da, gate_e) + matmul(db, up_e));
      dw.push_back(sum(r * hidden, Dims{1}, true));
      d_gate.push_back(matmul(transpose(da, 0, 1), xe));
      d_up.push_back(matmul(transpose(db, 0, 1), xe));
      d_down.push_back(matmul(transpose(ge, 0, 1), hidden * we));
    }
    const Tensor none = zeros({0}, x.dtype());
    const auto by_pair = [&] {
      const Tensor column = sorted.by_pair(cat(dw, 0));
      return to_dtype(reshape(column, f[kWeights].sizes()), f[kWeights].dtype());
    };
    return {need(kNeedsInput) ? sorted.combine(cat(dx, 0), x.sizes()[0]) : none,
            need(kNeedsGateUp) ? stack(d_gate, 0) : none, need(kNeedsGateUp) ? stack(d_up, 0) : none,
            need(kNeedsDown) ? stack(d_down, 0) : none, need(kNeedsWeights) ? by_pair() : none};
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(MoeBackward);

struct Moe {
  bool save;
  Opt<double> limit;
  bool wide;
  static constexpr OpInfo info{
      .schema =
          "_moe(Tensor input, Tensor gate_weight, Tensor up_weight, Tensor down_weight, Tensor topk_indices, "
          "Tensor topk_weights, bool save, float? swiglu_limit, bool wide) -> (Tensor output, Tensor gate_rows, Tensor "
          "up_rows)",
      .doc =
          "moe, with what its backward uses if `save`: the gate and up projections of all pairs, sorted by expert; "
          "after "
          "them a row of zeros for each slot without an expert.",
      .saves = {.inputs = kAllSlots, .outputs = kLaterSlots},
      .shown = Shown::kHidden};
  bool operator==(const Moe&) const = default;
  DType out_dtype(Inputs in) const { return wide ? computing_type(in[kX].dtype()) : in[kX].dtype(); }
  std::array<Meta, 3> infer(Inputs in) const {
    check_inputs(in);
    const Meta rows{in[kX].dtype(), {save ? in[kIds].numel() : 0, in[kGate].sizes()[1]}};
    swiglu_limit("moe", limit);
    return {Meta{out_dtype(in), in[kX].sizes()}, rows, rows};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const KernelInputs k(in, limit);
    kernels::moe_forward(
        k.views, k.rows,
        {out[0].dtype(), out[0].data_ptr(), save ? out[1].data_ptr() : nullptr, save ? out[2].data_ptr() : nullptr});
  }
  TensorList composite(Inputs in) const {
    const Tensor& x = in[kX];
    const SortedPairs sorted(in);
    const Tensor tokens = index_select(x, 0, sorted.token);
    TensorList gates, ups, outs;
    for (int64_t e = 0; e < in[kGate].sizes()[0]; ++e) {
      const Tensor rows = sorted.of(tokens, e);
      if (rows.sizes()[0] == 0) continue;
      gates.push_back(linear(rows, select(in[kGate], 0, e)));
      ups.push_back(linear(rows, select(in[kUp], 0, e)));
      const Limited seen(gates.back(), ups.back(), limit);
      outs.push_back(linear(swiglu(seen.gate, seen.up), select(in[kDown], 0, e)));
    }
    const int64_t f = in[kGate].sizes()[1];
    const Tensor weighted = rows_or_none(outs, x.sizes()[1], x.dtype()) * sorted.weights(in);
    const Tensor none = zeros({0, f}, x.dtype());
    const auto saved = [&](const TensorList& rows) {
      return save ? sorted.padded(rows_or_none(rows, f, x.dtype())) : none;
    };
    return {to_dtype(sorted.combine(weighted, x.sizes()[0]), out_dtype(in)), saved(gates), saved(ups)};
  }
  Grads vjp(const Vjp& c) const {
    // Someone differentiates the rows, or asked for gradients without them.
    if (c.grad[1].defined() || c.grad[2].defined() || !save) return vjp_by_composite(*this, c);
    const auto bit = [&](size_t i, int64_t needed) { return c.need(i) ? needed : 0; };
    const int64_t needs = bit(kX, kNeedsInput) | bit(kGate, kNeedsGateUp) | bit(kUp, kNeedsGateUp) |
                          bit(kDown, kNeedsDown) | bit(kWeights, kNeedsWeights);
    const Tensor grad = to_dtype(c.grad[0], c.in[kX].dtype());
    const auto g = apply_n<5>(MoeBackward{needs, limit}, grad, c.in[kX], c.in[kGate], c.in[kUp], c.in[kDown],
                              c.in[kIds], c.in[kWeights], detach(c.out[1]), detach(c.out[2]));
    const auto wanted = [&](size_t i, const Tensor& t) { return c.need(i) ? t : Tensor(); };
    return {wanted(kX, g[0]), wanted(kGate, g[1]),   wanted(kUp, g[2]), wanted(kDown, g[3]),
            Tensor(),         wanted(kWeights, g[4])};
  }
};
DS_OP(Moe);

Grads moe_gradients(const MoeOperands& in, const Tensor& grad, bool input, bool weights) {
  const auto rows = apply_n<3>(Moe{true, in.limit, false}, in.input, in.gate, in.up, in.down, in.ids, in.weights);
  const int64_t needs = (input ? int64_t{kNeedsInput} : 0) | (weights ? int64_t{kNeedsWeights} : 0);
  const auto g = apply_n<5>(MoeBackward{needs, in.limit}, to_dtype(grad, in.input.dtype()), in.input, in.gate, in.up,
                            in.down, in.ids, in.weights, detach(rows[1]), detach(rows[2]));
  return {input ? g[0] : Tensor(), weights ? g[4] : Tensor()};
}

DS_BODY_CAST_OF(
    kLower, slots(kX, kGate, kUp, kDown), MoePublic,  // not the routing weights
    "moe(Tensor input, Tensor gate_weight, Tensor up_weight, Tensor down_weight, Tensor topk_indices, Tensor "
    "topk_weights, float? swiglu_limit=None, bool wide=False) -> Tensor",
    "sum over k of topk_weights[t, k] * expert[topk_indices[t, k]](input[t]), expert(x) = (silu(x Wg^T) * x Wu^T) "
    "Wd^T. "
    "input [T, D]; gate and up [E, F, D]; down [E, D, F]; indices and weights [T, K], index -1 for no expert. "
    "swiglu_limit: gate projections are at most that, up projections within it. wide: float32 for 16-bit input.",
    false, kFunctional, Opt<double> limit;
    bool wide;) {
  const bool save = mode().records() && any_requires_grad(in);
  return apply_n<3>(Moe{save, limit, wide}, in[kX], in[kGate], in[kUp], in[kDown], in[kIds], in[kWeights])[0];
}

}  // namespace deepseek
