#include "core/dispatch/promotion.h"
#include "core/dispatch/recorder.h"
#include "core/op.h"
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::HasSubstr;

std::vector<std::string> g_log;

// Writes down when the choke point calls each part of it.
struct Traced {
  double factor;
  static constexpr OpInfo info{.schema = "_test_traced(Tensor input, float factor) -> Tensor",
                               .doc = "",
                               .autocast = Autocast::kFloat32,
                               .saves = Saves::kNone,
                               .inplace = true,
                               .elementwise = true,
                               .shown = Shown::kHidden};
  bool operator==(const Traced&) const = default;
  Meta infer(Inputs in) const {
    g_log.push_back(std::string("infer ") + name_of(in[0].dtype()));
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    g_log.push_back(out.has_data() ? "eval" : "eval without memory");
    kernels::copy(out.view(), in[0].view());
  }
  Grads vjp(const Vjp& c) const {
    g_log.push_back("vjp");
    return {c.grad[0]};
  }
};
DS_OP(Traced);

class Log final : public Recorder {
 public:
  Log() : Recorder(0) { mode().recorder = this; }
  ~Log() override { mode().recorder = nullptr; }
  void record(const OpDef& def, const void*, Inputs in, Inputs out) override {
    const GradMeta* m = out[0].cell()->grad_meta.get();
    const bool taped = m && m->edge.node;
    g_log.push_back(std::string("record ") + def.name() + " " + std::to_string(in.size()) + (taped ? " taped" : ""));
  }
  void record_inplace(const OpDef& def, const void*, Inputs in) override {
    g_log.push_back(std::string("record ") + def.name() + "_ version " + std::to_string(in[0].version()));
  }
  void record_write(const Tensor&, const Tensor&) override { g_log.push_back("record copy_"); }
  void before_write(const Tensor&) override {}
  void record_draw(const Tensor&, int64_t count) override { g_log.push_back("draw " + std::to_string(count)); }
  void record_accumulate(const Tensor&, const Tensor&, bool) override { g_log.push_back("accumulate"); }
  void record_set_grad(const Tensor&, const Tensor&) override {}
  void record_get_grad(const Tensor&, const Tensor&) override {}
  void record_read(const Tensor&) override { g_log.push_back("read"); }
  void record_constant(const Tensor&) override {}
  void record_wrapped(const Tensor&) override {}
  void record_foreign_edge(const Tensor&) override {}
  void refuse(const std::string& why) override { g_log.push_back("refuse " + why); }
};

std::vector<std::string> logged(const std::function<void()>& run) {
  g_log.clear();
  run();
  return std::exchange(g_log, {});
}

using Lines = std::vector<std::string>;

TEST(Dispatch, TheChokePointsOrder) {
  const Tensor x = leaf({2}, {1, 2}), h = set_requires_grad(vector({1, 2}, DType::kBFloat16));
  Log recorder;
  EXPECT_EQ(logged([&] { apply(Traced{2}, x); }), (Lines{"infer float64", "eval", "record _test_traced 1 taped"}));
  {
    const GradGuard off(false);
    EXPECT_EQ(logged([&] { apply(Traced{2}, x); }), (Lines{"infer float64", "eval", "record _test_traced 1"}));
  }
  mode().autocast = true;  // the cast comes first and is recorded as an op of its own
  EXPECT_EQ(logged([&] { apply(Traced{2}, h); }),
            (Lines{"record _to_dtype 1 taped", "infer float32", "eval", "record _test_traced 1 taped"}));
  EXPECT_TRUE(mode().autocast);
  mode().autocast = false;
}

TEST(Dispatch, TheRecorderSeesViewsCompositesAndWrites) {
  const Tensor x = tensor({2, 2}, {1, 2, 3, 4});
  Log recorder;
  EXPECT_EQ(logged([&] { transpose(x, 0, 1); }), Lines{"record transpose 1"});
  const Lines composite = logged([&] { call("addmm", {x, x, x}); });
  EXPECT_THAT(composite, ::testing::Not(::testing::Contains(HasSubstr("addmm"))));  // its parts, not itself
  EXPECT_GE(composite.size(), 2u);
  EXPECT_EQ(logged([&] { add_(x, x); }).back().substr(0, 8), "record a");
}

TEST(Dispatch, AutocastRules) {
  const Tensor a = tensor({2, 2}, {1, 2, 3, 4}, DType::kFloat32), b = tensor({2, 2}, {1, 2, 3, 4}, DType::kBFloat16);
  const Tensor wide = tensor({2, 2}, {1, 2, 3, 4});
  mode().autocast = true;
  EXPECT_EQ(matmul(a, a).dtype(), DType::kBFloat16);
  EXPECT_EQ(matmul(a, b).dtype(), DType::kBFloat16);  // the body's check sees the cast
  EXPECT_EQ(softmax(b, 1).dtype(), DType::kBFloat16);
  EXPECT_EQ((a + a).dtype(), DType::kFloat32);
  EXPECT_EQ(matmul(wide, wide).dtype(), DType::kFloat64);
  mode().autocast = false;
  EXPECT_EQ(matmul(a, a).dtype(), DType::kFloat32);
}

TEST(Dispatch, AutocastIsRestoredAfterAnError) {
  mode().autocast = true;
  EXPECT_THROW(matmul(tensor({2, 2}, {1, 2, 3, 4}), tensor({3, 1}, {1, 2, 3})), Error);
  EXPECT_TRUE(mode().autocast);
  mode().autocast = false;
}

TEST(Dispatch, ResultTypes) {
  const Tensor b = flags({1}, {1}), i8 = tensor({1}, {1}, DType::kInt8), u8 = tensor({1}, {1}, DType::kUInt8),
               i64 = longs({1}, {1}), h = tensor({1}, {1}, DType::kFloat16), bf = tensor({1}, {1}, DType::kBFloat16),
               f = tensor({1}, {1}, DType::kFloat32), d0 = tensor({}, {1}), i0 = longs({}, {1});
  const struct {
    TensorList in;
    DType expected;
  } cases[] = {
      {{b, b}, DType::kBool},
      {{b, i8}, DType::kInt8},
      {{u8, i8}, DType::kInt16},
      {{i64, h}, DType::kFloat16},
      {{h, bf}, DType::kFloat32},
      {{h, d0}, DType::kFloat16},
      {{i8, d0}, DType::kFloat64},
      {{i8, i0}, DType::kInt8},
      {{b, scalar(1)}, DType::kInt64},
      {{i8, scalar(1)}, DType::kInt8},
      {{i64, scalar(1.5)}, DType::kFloat32},
      {{bf, scalar(1.5)}, DType::kBFloat16},
      {{i0, scalar(1.5)}, DType::kFloat32},
      {{d0, f}, DType::kFloat32},
      {{scalar(true), i8}, DType::kInt8},
      {{Tensor(), i8}, DType::kInt8},
  };
  for (size_t i = 0; i < std::size(cases); ++i) EXPECT_EQ(result_type(cases[i].in), cases[i].expected) << "row " << i;
}

TEST(Dispatch, BroadcastSizes) {
  EXPECT_EQ(broadcast_sizes("f", {3, 1}, {4}), (Dims{3, 4}));
  EXPECT_EQ(broadcast_sizes("f", {}, {2, 0}), (Dims{2, 0}));
  EXPECT_EQ(broadcast_sizes("f", {1}, {0}), Dims{0});
  EXPECT_EQ(broadcast_sizes("f", {4}, {3, 1}), (Dims{3, 4}));
  try {
    broadcast_sizes("f", {2, 3}, {4, 1, 4});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(std::string(e.what()),
                HasSubstr("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 2"));
  }
}

// --- writes

TEST(Inplace, WritesGoThroughEveryAlias) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor column = select(x, 1, 0), flat = view(x, {6}), turned = transpose(x, 0, 1);
  call_inplace("mul", {column, scalar(10)});
  EXPECT_EQ(values_of(x), (std::vector<double>{10, 2, 3, 40, 5, 6}));
  EXPECT_EQ(values_of(flat), values_of(x));
  EXPECT_EQ(values_of(turned), (std::vector<double>{10, 40, 2, 5, 3, 6}));
  add_(turned, turned);
  EXPECT_EQ(values_of(flat), (std::vector<double>{20, 4, 6, 80, 10, 12}));
  EXPECT_EQ(x.version(), 2u);
}

TEST(Inplace, PartlyOverlappingInputsAreRefused) {
  const Tensor x = vector({1, 2, 3, 4}), m = view(x, {2, 2});
  const std::function<void()> refused[] = {
      [&] { add_(slice(x, 0, 1, {}), slice(x, 0, {}, -1)); },
      [&] { copy_(slice(x, 0, 1, {}), slice(x, 0, {}, -1)); },
      [&] { add_(m, transpose(m, 0, 1)); },
      [&] { add_(x, select(x, 0, 0)); },
  };
  for (const auto& write : refused) EXPECT_THROW(write(), Error);
  EXPECT_EQ(values_of(x), (std::vector<double>{1, 2, 3, 4}));
  add_(slice(x, 0, 0, 2), slice(x, 0, 2, 4));          // apart
  add_(slice(x, 0, 0, {}, 2), slice(x, 0, 1, {}, 2));  // interleaved
  add_(x, view(x, {4}));                               // the same elements
  EXPECT_EQ(values_of(x), (std::vector<double>{20, 12, 14, 8}));
}

// d(sum of the weighted result)/dx for programs that write into memory, against central differences.
TEST(Inplace, GradientsThroughViewsAndBases) {
  const std::pair<const char*, Function> programs[] = {
      {"a column of a result",
       [](const TensorList& in) {
         const Tensor y = in[0] * 1.0;
         call_inplace("mul", {select(y, 1, 0), scalar(3)});
         return y * y;
       }},
      {"a column by itself",
       [](const TensorList& in) {
         const Tensor y = in[0] * 2.0, c = select(y, 1, 1);
         call_inplace("mul", {c, c});
         return y;
       }},
      {"a view made before the write sees it",
       [](const TensorList& in) {
         const Tensor y = in[0] * 1.0, row = select(y, 0, 1);
         call_inplace("mul", {y, y});
         return row * row;
       }},
      {"a write of a recorded value into fresh memory",
       [](const TensorList& in) {
         const Tensor out = zeros({2, 3}, DType::kFloat64);
         for (int64_t t = 0; t < 3; ++t) copy_(select(out, 1, t), select(in[0], 1, 2 - t) * static_cast<double>(t + 1));
         return out * out;
       }},
      {"view of a view",
       [](const TensorList& in) {
         const Tensor y = in[0] * 1.0;
         call_inplace("sin", {slice(select(transpose(y, 0, 1), 0, 1), 0, 0, 1)});
         return y * y;
       }},
      {"the same memory twice",
       [](const TensorList& in) {
         const Tensor y = in[0] * 1.0;
         add_(view(y, {6}), view(in[0], {6}) * view(in[0], {6}));
         call_inplace("mul", {y, in[0]});
         return y;
       }},
      {"overwriting cuts the old history",
       [](const TensorList& in) {
         const Tensor y = in[0] * in[0];
         call_inplace("zero", {y});
         return y + in[0];
       }},
      {"broadcast value",
       [](const TensorList& in) {
         const Tensor y = in[0] * 1.0;
         copy_(y, select(in[0], 0, 0));
         return y * y;
       }},
      {"exp in place",
       [](const TensorList& in) {
         const Tensor y = in[0] * 1.0;
         call_inplace("exp", {y});
         return y * in[0];
       }},
  };
  for (const auto& [what, program] : programs) {
    SCOPED_TRACE(what);
    expect_gradients(program, {spread({2, 3})}, what);
  }
}

template <class F>
void expect_error(const std::string& message, F&& run) {
  try {
    run();
    ADD_FAILURE() << "no error; expected " << message;
  } catch (const Error& e) {
    EXPECT_THAT(std::string(e.what()), HasSubstr(message));
  }
}

TEST(Inplace, WhatCannotBeWritten) {
  const Tensor x = leaf({2}, {1, 2}), c = vector({1, 2});
  expect_error("a leaf Variable that requires grad is being used in an in-place operation", [&] { add_(x, c); });
  expect_error("a view of a leaf Variable that requires grad", [&] { add_(select(x, 0, 0), select(c, 0, 0)); });
  expect_error("more than one element of the written-to tensor", [&] { add_(expand(c, {3, 2}), ones({3, 2})); });
  expect_error("doesn't match the broadcast shape", [&] { add_(c, ones({3, 2}, DType::kFloat64)); });
  expect_error("result type float32 can't be cast to the desired output type int64", [&] {
    call_inplace("mul", {longs({1}, {2}), scalar(1.5)});
  });
  c.storage()->set_read_only();
  expect_error("read-only", [&] { add_(c, c); });
  {
    const GradGuard off(false);
    const Tensor free = leaf({2}, {1, 2});
    add_(free, free);  // optimizers write into leaves
    EXPECT_EQ(values_of(free), (std::vector<double>{2, 4}));
  }
}

TEST(Inplace, ViewsMadeWithoutGradients) {
  const Tensor x = leaf({2}, {1, 2}), y = x * 2.0;
  Tensor v;
  {
    const GradGuard off(false);
    v = select(y, 0, 0);
  }
  expect_error("A view was created in no_grad or inference mode", [&] { call_inplace("mul", {v, select(x, 0, 0)}); });
}

TEST(Inplace, InferenceTensors) {
  mode().inference = true;
  mode().grad = false;
  const Tensor t = vector({1});
  add_(t, t);
  mode().inference = false;
  mode().grad = true;
  expect_error("Inplace update to inference tensor outside InferenceMode", [&] { add_(t, t); });
}

TEST(Inplace, DTypeStaysTheTargets) {
  const Tensor h = vector({1.5, 2}, DType::kFloat16);
  add_(h, vector({0.25, 1}, DType::kFloat32));
  EXPECT_EQ(h.dtype(), DType::kFloat16);
  EXPECT_EQ(values_of(h), (std::vector<double>{1.75, 3}));
}

TEST(WriteInto, ASelfWriteIsNothing) {
  const Tensor x = vector({1, 2});
  copy_(x, x);
  EXPECT_EQ(values_of(x), (std::vector<double>{1, 2}));
}

}  // namespace
}  // namespace deepseek
