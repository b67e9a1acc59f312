// Recording, passes, verifier and replay of captured calls.
#include <gmock/gmock.h>

#include "autograd/engine.h"
#include "jit/recording.h"
#include "ops/ops.h"
#include "tests/core_testing.h"

namespace deepseek::jit {
namespace {

using testing::call;
using ::testing::HasSubstr;
using testing::leaf;
using testing::tensor;
using testing::values_of;

// The graph of one call of `f` on `in`; expects that it can be replayed.
template <class F>
Graph record(const TensorList& in, F f) {
  Recording recording(in);
  const TensorList out = f(in);
  const std::string why = recording.finish(out, false);
  EXPECT_EQ(why, "");
  verify(recording.graph());
  return std::move(recording.graph());
}

void run_passes(Graph& g) {
  for (const Pass& p : passes()) {
    p.run(g);
    verify(g);
  }
}

size_t count(const Graph& g, const char* op) {
  return std::ranges::count_if(g.nodes, [&](const GraphNode& n) { return n.def && std::string(n.def->name()) == op; });
}

TEST(Jit, ReplayMakesTheSameCalls) {
  Graph g = record({tensor({3}, {1, 2, 3}), tensor({3}, {4, 5, 6})}, [](const TensorList& in) {
    return TensorList{exp(in[0] * in[1]), in[0] + in[1]};
  });
  run_passes(g);
  const TensorList in{tensor({3}, {0, 1, -1}), tensor({3}, {2, 2, 2})};
  TensorList out;
  ASSERT_TRUE(replay(g, in, out));
  EXPECT_EQ(values_of(out[0]), values_of(exp(in[0] * in[1])));
  EXPECT_EQ(values_of(out[1]), values_of(in[0] + in[1]));
  EXPECT_EQ(mode().recorder, nullptr);
}

TEST(Jit, AViewSeesAWriteToItsBase) {
  Graph g = record({tensor({2, 2}, {1, 2, 3, 4})}, [](const TensorList& in) {
    const Tensor x = in[0] * 1.0;
    const Tensor column = select(x, 1, 0);
    add_(x, x);
    return TensorList{column * 1.0};
  });
  run_passes(g);
  TensorList out;
  ASSERT_TRUE(replay(g, TensorList{tensor({2, 2}, {5, 6, 7, 8})}, out));
  EXPECT_EQ(values_of(out[0]), (std::vector<double>{10, 14}));
}

TEST(Jit, BackwardInsideIsFlattenedAndLeavesNoTape) {
  const auto f = [](const TensorList& in) {
    const Tensor loss = sum(in[0] * in[0] * in[1]);
    return TensorList{grad(TensorList{loss}, {}, TensorList{in[0]}, {})[0]};
  };
  const TensorList in{leaf({2}, {1, 2}), tensor({2}, {3, 4})};
  Graph g = record(in, f);
  run_passes(g);
  for (const GraphNode& n : g.nodes) EXPECT_FALSE(n.grad);
  TensorList out;
  ASSERT_TRUE(replay(g, in, out));
  EXPECT_EQ(values_of(out[0]), (std::vector<double>{6, 16}));
  EXPECT_FALSE(out[0].requires_grad());
}

TEST(Jit, ATapeThatLeavesIsKept) {
  const TensorList in{leaf({2}, {1, 2})};
  Graph g = record(in, [](const TensorList& in) { return TensorList{sum(in[0] * in[0])}; });
  run_passes(g);
  TensorList out;
  ASSERT_TRUE(replay(g, in, out));
  EXPECT_EQ(values_of(grad(out, {}, in, {})[0]), (std::vector<double>{2, 4}));
}

TEST(Jit, PassesDropWhatIsNotNeeded) {
  Graph g = record({tensor({2}, {1, 2})}, [](const TensorList& in) {
    const Tensor unused = exp(in[0]);
    return TensorList{sin(in[0]) + sin(in[0])};
  });
  EXPECT_EQ(count(g, "sin"), 2u);
  EXPECT_EQ(count(g, "exp"), 1u);
  run_passes(g);
  EXPECT_EQ(count(g, "sin"), 1u);
  EXPECT_EQ(count(g, "exp"), 0u);
}

TEST(Jit, AWriteOutsideIsNeverDropped) {
  const Tensor total = tensor({2}, {0, 0});
  Graph g = record({tensor({2}, {1, 2}), total}, [](const TensorList& in) {
    add_(in[1], in[0]);
    return TensorList{};
  });
  run_passes(g);
  TensorList out;
  ASSERT_TRUE(replay(g, TensorList{tensor({2}, {1, 2}), total}, out));
  EXPECT_EQ(values_of(total), (std::vector<double>{2, 4}));
}

TEST(Jit, AnotherValueReadBackEndsTheReplay) {
  Graph g = record({tensor({1}, {3})}, [](const TensorList& in) {
    const Tensor noise = call("rand_like", {in[0]});
    EXPECT_EQ(in[0].item().to_double(), 3);
    return TensorList{noise};
  });
  run_passes(g);
  const RngState before = default_generator().state();
  TensorList out;
  EXPECT_FALSE(replay(g, TensorList{tensor({1}, {4})}, out));
  EXPECT_EQ(default_generator().state(), before);
  EXPECT_TRUE(replay(g, TensorList{tensor({1}, {3})}, out));
}

TEST(Jit, RandomNumbersAreDrawnOnEveryReplay) {
  Graph g =
      record({tensor({4}, {0, 0, 0, 0})}, [](const TensorList& in) { return TensorList{call("rand_like", {in[0]})}; });
  run_passes(g);
  const TensorList in{tensor({4}, {0, 0, 0, 0})};
  TensorList a, b;
  replay(g, in, a);
  replay(g, in, b);
  EXPECT_NE(values_of(a[0]), values_of(b[0]));
}

TEST(Jit, ReadingAfterAWriteOutsideIsRefused) {
  const TensorList in{tensor({1}, {1})};
  Recording recording(in);
  add_(in[0], in[0]);
  in[0].item();
  EXPECT_THAT(recording.finish({}, false), HasSubstr("read back after"));
}

TEST(Jit, MemoryOfUnknownOriginIsRefused) {
  const TensorList in{tensor({1}, {1})};
  Recording recording(in);
  const Tensor hidden = Tensor::empty({1}, DType::kFloat64);
  const Tensor sum = in[0] + hidden;
  EXPECT_THAT(recording.finish(TensorList{sum}, false), HasSubstr("not recorded"));
}

TEST(Jit, TheVerifierFindsBrokenGraphs) {
  const Graph good = record({tensor({2}, {1, 2})}, [](const TensorList& in) { return TensorList{exp(in[0])}; });
  const auto broken = [&](auto change) {
    Graph g = good;
    change(g);
    try {
      verify(g);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(broken([](Graph& g) { g.nodes[0].in[0] = 7; }), HasSubstr("reads slot %7 before it is defined"));
  EXPECT_THAT(broken([](Graph& g) { g.nodes.push_back(g.nodes[0]); }), HasSubstr("a second time"));
  EXPECT_THAT(broken([](Graph& g) { g.nodes[0].release.push_back(g.nodes[0].out[0]); }),
              HasSubstr("the result list reads slot %1 after its release"));
  EXPECT_THAT(broken([](Graph& g) { g.nodes[0].def = nullptr; }), HasSubstr("no op"));
  EXPECT_THAT(broken([](Graph& g) { g.nodes[0].attributes.resize(3); }), HasSubstr("3 bytes of attributes"));
}

TEST(Jit, TheTextShowsCallsAttributesAndTypes) {
  const Graph g = record({tensor({2, 3}, {1, 2, 3, 4, 5, 6})},
                         [](const TensorList& in) { return TensorList{sum(in[0] * 2.0, Dims{1}, true)}; });
  const std::string text = to_text(g);
  EXPECT_THAT(text, HasSubstr("graph(%0: float64[2, 3])"));
  EXPECT_THAT(text, HasSubstr("constant float64[] 2"));
  EXPECT_THAT(text, HasSubstr("dim=[1], keepdim=True"));
}

TEST(PointerMap, KeepsTheFirstNumberOfEachAddress) {
  std::vector<char> memory(64 * 1000);
  PointerMap map;
  for (int32_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(map.find(&memory[64 * i]), nullptr);
    EXPECT_EQ(map.add(&memory[64 * i], i), i);
    EXPECT_EQ(map.add(&memory[64 * i], -1), i);
  }
  map.set(&memory[64], 7);
  map.set(&memory[64 * 999 + 16], 8);
  for (int32_t i = 0; i < 1000; ++i) EXPECT_EQ(*map.find(&memory[64 * i]), i == 1 ? 7 : i);
  EXPECT_EQ(*map.find(&memory[64 * 999 + 16]), 8);
}

}  // namespace
}  // namespace deepseek::jit
