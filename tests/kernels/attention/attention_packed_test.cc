// kernels/attention/attention_packed.h: many calls at once have the bits that each has alone, whatever the threads.
#include "kernels/attention/attention_packed.h"

#include "tests/kernels/attention/attention_testing.h"

namespace deepseek::kernels {
namespace {
using namespace attention_testing;

template <class T>
struct Call : Problem<T> {
  Array<T> grad, dq, dk, dv;
  Array<float> delta;
  explicit Call(const Case& c)
      : Problem<T>(c),
        grad(this->out.sizes),
        dq(this->q.sizes),
        dk(this->k.sizes),
        dv(this->v.sizes),
        delta(this->lse.sizes) {
    fill_normal(grad, 7);
  }
  AttentionTask forward() { return {this->args(), this->out.view(), this->lse.view()}; }
  AttentionBackwardTask backward() {
    attention_delta(grad.view(), this->out.view(), {}, delta.view());
    return {this->args(), grad.view(), this->lse.view(), delta.view(), dq.view(), dk.view(), dv.view()};
  }
  void alone() {
    attention_forward(this->args(), this->out.view(), this->lse.view());
    const AttentionBackwardTask t = backward();
    attention_backward(t.a, t.grad_out, t.lse, t.delta, t.dq, t.dk, t.dv);
  }
};

template <class T>
void expect_same(const Array<T>& a, const Array<T>& b, const char* what) {
  ASSERT_EQ(a.data.size(), b.data.size());
  if (!a.data.empty()) {
    EXPECT_EQ(std::memcmp(a.data.data(), b.data.data(), a.data.size() * sizeof(T)), 0) << what;
  }
}

template <class T>
void expect_as_alone(const std::vector<Case>& cases) {
  std::vector<Call<T>> alone, together;
  for (const Case& c : cases) alone.emplace_back(c).alone();
  const int before = num_threads();
  set_grain_limit(1);
  for (const int threads : {1, 5}) {
    set_num_threads(threads);
    together.clear();
    for (const Case& c : cases) together.emplace_back(c);
    std::vector<AttentionTask> forward;
    for (auto& call : together) forward.push_back(call.forward());
    attention_forward(forward);
    std::vector<AttentionBackwardTask> backward;
    for (auto& call : together) backward.push_back(call.backward());
    attention_backward(backward);
    for (size_t i = 0; i < cases.size(); ++i) {
      std::ostringstream name;
      name << cases[i] << " on " << threads << " threads";
      SCOPED_TRACE(name.str());
      expect_same(together[i].out, alone[i].out, "out"), expect_same(together[i].lse, alone[i].lse, "lse");
      expect_same(together[i].dq, alone[i].dq, "dq"), expect_same(together[i].dk, alone[i].dk, "dk");
      expect_same(together[i].dv, alone[i].dv, "dv");
    }
  }
  set_num_threads(before);
  set_grain_limit(0);
}

TEST(AttentionPacked, EachCallHasTheBitsOfItsOwn) {
  const std::vector<Case> few{{.batch = 1, .heads = 2, .key_heads = 1, .queries = 1, .keys = 1500}, {.queries = 0}};
  for_each_target([&] {
    for (const auto& some : {cases(), few, std::vector<Case>{}}) {
      expect_as_alone<float>(some);
      expect_as_alone<BFloat16>(some);
    }
  });
}

}  // namespace
}  // namespace deepseek::kernels
