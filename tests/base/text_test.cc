#include "base/text.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>

#include "base/check.h"
#include "base/dims.h"
#include "base/function_ref.h"
#include "base/scalar.h"
#include "gtest/gtest.h"

namespace deepseek {
namespace {

// What a stream writes is the reference.
template <class T>
void expect_as_streamed(const T& value) {
  std::ostringstream out;
  out << value;
  EXPECT_EQ(text_of({value}), out.str());
}

TEST(Text, NumbersAreWrittenAsAStreamWritesThem) {
  for (const double v : {0.0, -0.0, 1.0, 0.1, 1.0 / 3, -2.5e-7, 123456.0, 1234567.0, 1e300, 5e-324, 1e-5})
    expect_as_streamed(v);
  for (const double v : {HUGE_VAL, -HUGE_VAL}) expect_as_streamed(v);
  expect_as_streamed(std::numeric_limits<double>::quiet_NaN());
  expect_as_streamed(0.3f);
  expect_as_streamed(std::numeric_limits<int64_t>::min());
  expect_as_streamed(std::numeric_limits<uint64_t>::max());
  expect_as_streamed(-7);
  expect_as_streamed(size_t{7});
  expect_as_streamed(true);
  expect_as_streamed('x');
}

TEST(Text, OurTypesAreWordsAndCanBeStreamed) {
  EXPECT_EQ(text_of({Dims{2, 3}, ' ', Dims{}, ' ', DType::kBFloat16, ' ', Scalar(true), ' ', Scalar(1.5)}),
            "[2, 3] [] deepseek.bfloat16 True 1.5");
  expect_as_streamed(Dims{1, -2});
  expect_as_streamed(DType::kInt8);
  expect_as_streamed(Scalar(0.25));
}

TEST(Text, StringsOfAllSorts) {
  const std::string owned = "b";
  const char* pointer = "c";
  EXPECT_EQ(text_of({"a", owned, pointer, std::string_view("d"), std::string("e")}), "abcde");
  EXPECT_EQ(text_of({}), "");
  EXPECT_EQ(either({"a"}) + either({"a", "b"}) + either({"a", "b", "c"}), "aa or ba, b or c");
}

TEST(Text, AFailureHasItsClassAndItsWords) {
  try {
    fail<IndexError>("index ", 7, " of ", Dims{2});
    FAIL();
  } catch (const IndexError& e) {
    EXPECT_STREQ(e.what(), "index 7 of [2]");
  }
}

TEST(FunctionRef, CallsWhatItRefersTo) {
  int calls = 0;
  const auto count = [&](int n) { return calls += n; };
  const FunctionRef<int(int)> f = count, copy = f;
  EXPECT_EQ(f(2), 2);
  EXPECT_EQ(copy(3), 5);
  auto changing = [n = 0]() mutable { return ++n; };
  const FunctionRef<int()> g = changing;
  g();
  EXPECT_EQ(g(), 2);
  EXPECT_EQ(changing(), 3);
}

}  // namespace
}  // namespace deepseek
