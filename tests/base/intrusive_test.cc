#include "base/intrusive.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace deepseek {
namespace {

struct Object : Counted {
  static inline std::atomic<int> live = 0;
  Object() { ++live; }
  ~Object() { --live; }
};

TEST(Ref, CountsCopiesMovesAndResets) {
  Ref<Object> a = make_ref<Object>();
  EXPECT_EQ(a->use_count(), 1u);
  Ref<Object> b = a;
  EXPECT_EQ(a->use_count(), 2u);
  Ref<Object> c = std::move(b);
  EXPECT_FALSE(b);
  EXPECT_EQ(a->use_count(), 2u);
  a.reset();
  EXPECT_EQ(c->use_count(), 1u);
  c = nullptr;
  EXPECT_EQ(Object::live, 0);
}

TEST(Ref, AssignmentToItselfKeepsTheObject) {
  Ref<Object> a = make_ref<Object>();
  Ref<Object>& alias = a;
  a = alias;
  EXPECT_EQ(a->use_count(), 1u);
  a = std::move(alias);
  EXPECT_EQ(Object::live, a ? 1 : 0);
}

TEST(Ref, ReleaseAndAdoptHandOverTheCount) {
  Ref<Object> a = make_ref<Object>();
  Object* raw = a.release();
  EXPECT_FALSE(a);
  EXPECT_EQ(raw->use_count(), 1u);
  Ref<Object> b = Ref<Object>::adopt(raw);
  EXPECT_EQ(raw->use_count(), 1u);
  b.reset();
  EXPECT_EQ(Object::live, 0);
}

TEST(Ref, ThreadsShareOneObject) {
  Ref<Object> shared = make_ref<Object>();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([shared] {
      for (int i = 0; i < 10000; ++i) Ref<Object> copy = shared;
    });
  for (std::thread& t : threads) t.join();
  threads.clear();
  EXPECT_EQ(shared->use_count(), 1u);
  shared.reset();
  EXPECT_EQ(Object::live, 0);
}

}  // namespace
}  // namespace deepseek
