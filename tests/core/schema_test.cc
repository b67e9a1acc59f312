#include "core/schema/schema.h"

#include "base/check.h"
#include "core/schema/schema_types.h"
#include "gmock/gmock.h"

namespace deepseek {
namespace {
using ::testing::HasSubstr;

TEST(Schema, EveryPartOfASignature) {
  const Schema s = Schema::parse(
      "op.over(Tensor input, Tensor? other=None, int[]* size=[1, -2], *, float eps=1e-05, str mode='mean', dtype? "
      "dtype=None, "
      "device? device=None, bool requires_grad=False) -> (Tensor values, Tensor indices)");
  EXPECT_EQ(s.name, "op.over");
  EXPECT_EQ(s.base, "op");
  EXPECT_EQ(s.num_inputs, 2);
  EXPECT_EQ(s.num_fields, 4);
  EXPECT_EQ(s.returns, (std::vector<std::string>{"values", "indices"}));
  EXPECT_FALSE(s.returns_list);
  const struct {
    const char* name;
    ArgType kind;
    int slot;
    bool keyword_only, has_default;
    const char* default_text;
  } expected[] = {
      {"input", ArgType::kTensor, 0, false, false, ""},     {"other", ArgType::kTensor, 1, false, true, "None"},
      {"size", ArgType::kDims, 0, false, true, "[1, -2]"},  {"eps", ArgType::kFloat, 1, true, true, "1e-05"},
      {"mode", ArgType::kStr, 2, true, true, "'mean'"},     {"dtype", ArgType::kOptDType, 3, true, true, "None"},
      {"device", ArgType::kDevice, -1, true, true, "None"}, {"requires_grad", ArgType::kBool, -1, true, true, "False"},
  };
  ASSERT_EQ(s.args.size(), std::size(expected));
  for (size_t i = 0; i < s.args.size(); ++i) {
    SCOPED_TRACE(expected[i].name);
    EXPECT_EQ(s.args[i].name, expected[i].name);
    EXPECT_EQ(s.args[i].kind, expected[i].kind);
    EXPECT_EQ(s.args[i].slot, expected[i].slot);
    EXPECT_EQ(s.args[i].keyword_only, expected[i].keyword_only);
    EXPECT_EQ(s.args[i].has_default, expected[i].has_default);
    EXPECT_EQ(s.args[i].default_text, expected[i].default_text);
  }
  EXPECT_TRUE(s.args[1].optional_tensor);
  EXPECT_TRUE(s.args[2].varargs);
}

TEST(Schema, WrittenArgumentsAndListsOfOneLength) {
  const Schema s = Schema::parse(
      "step(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)?[] masters, Tensor lr, Tensor(c!) count, *, float beta) -> "
      "()");
  EXPECT_TRUE(s.writes);
  EXPECT_TRUE(s.returns.empty());
  EXPECT_EQ(s.num_inputs, 5);
  EXPECT_EQ(s.num_lists, 3);
  EXPECT_EQ(s.args[0].type, "Tensor[]");
  EXPECT_TRUE(s.args[0].written);
  EXPECT_FALSE(s.args[1].written);
  EXPECT_EQ(s.args[2].type, "Tensor?[]");
  EXPECT_TRUE(s.args[2].optional_tensor);
  EXPECT_EQ(s.list_length(8), 2);  // three lists of two, and two single ones
  EXPECT_EQ(s.list_length(2), 0);
  std::vector<size_t> written;
  s.for_each_written(8, [&](size_t i) { written.push_back(i); });
  EXPECT_EQ(written, (std::vector<size_t>{0, 1, 4, 5, 7}));
  EXPECT_EQ(signature_text(s, "step"),
            "step(params: Sequence[Tensor], grads: Sequence[Tensor], masters: Sequence[Tensor | None], lr: Tensor, "
            "count: Tensor, *, beta: float) -> None");
  const Schema plain = Schema::parse("f(Tensor a, Tensor[] b) -> Tensor");
  EXPECT_FALSE(plain.writes);
  plain.for_each_written(3, [](size_t) { FAIL(); });
  EXPECT_THROW(Schema::parse("f(int(a!) a) -> Tensor"), Error);
  EXPECT_THROW(Schema::parse("f(Tensor(a) a) -> Tensor"), Error);
}

TEST(Schema, WhoTakesNumbers) {
  const Schema s = Schema::parse("f(Tensor a, Tensor|Number b, Tensor|LeftNumber c, Tensor|Number? d=None) -> Tensor");
  const Numbers expected[] = {Numbers::kNo, Numbers::kYes, Numbers::kOnTheLeft, Numbers::kYes};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(s.args[i].numbers, expected[i]) << s.args[i].name;
    EXPECT_EQ(s.args[i].optional_tensor, i == 3) << s.args[i].name;
  }
  EXPECT_THROW(Schema::parse("f(Tensor | Number a) -> Tensor"), Error);
}

TEST(Schema, EveryArgumentType) {
  const std::pair<const char*, ArgType> types[] = {
      {"Tensor", ArgType::kTensor},
      {"Tensor?", ArgType::kTensor},
      {"Tensor[]", ArgType::kTensorList},
      {"Tensor?[]", ArgType::kTensorList},
      {"int", ArgType::kInt},
      {"int?", ArgType::kOptInt},
      {"int[]", ArgType::kDims},
      {"int[]?", ArgType::kOptDims},
      {"float", ArgType::kFloat},
      {"float?", ArgType::kOptFloat},
      {"bool", ArgType::kBool},
      {"bool?", ArgType::kOptBool},
      {"Scalar", ArgType::kScalar},
      {"Scalar?", ArgType::kOptScalar},
      {"str", ArgType::kStr},
      {"str?", ArgType::kOptStr},
      {"dtype?", ArgType::kOptDType},
      {"Generator?", ArgType::kGenerator},
      {"Tensor|Number", ArgType::kTensor},
      {"Tensor|Number?", ArgType::kTensor},
      {"Tensor|Number[]", ArgType::kTensorList},
      {"device?", ArgType::kDevice},
  };
  for (const auto& [text, kind] : types)
    EXPECT_EQ(Schema::parse(std::string("f(") + text + " a) -> Tensor").args[0].kind, kind) << text;
}

TEST(Schema, ResultsAndSpacing) {
  EXPECT_EQ(Schema::parse("f() -> Tensor").args.size(), 0u);
  EXPECT_EQ(Schema::parse("f() -> Tensor").returns, std::vector<std::string>{""});
  EXPECT_TRUE(Schema::parse("f(Tensor a) -> Tensor[]").returns_list);
  EXPECT_EQ(Schema::parse("  f ( Tensor a ,*, int  b = 3 )  ->  Tensor").args[1].default_text, "3 ");
  EXPECT_TRUE(Schema::parse("f(*, int a=1) -> Tensor").args[0].keyword_only);
}

TEST(Schema, ErrorsNameTheTextAndThePlace) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected an op name at character 0"},
      {"f", "expected '(' at character 1"},
      {"f(Tensor", "expected an argument name at character 8"},
      {"f(Tensor a", "expected ',' at character 10"},
      {"f(Tensor a int b) -> Tensor", "expected ',' at character 11"},
      {"f(tensor a) -> Tensor", "unknown type 'tensor'"},
      {"f(float[] a) -> Tensor", "unknown type 'float[]'"},
      {"f(int[ a) -> Tensor", "expected ']'"},
      {"f(int a=) -> Tensor", "expected a default value"},
      {"f(int[] a=[1, 2) -> Tensor", "expected ','"},
      {"f(int a)", "expected '->'"},
      {"f(int a) -> ", "expected a type"},
      {"f(int a) -> (Tensor) ", "expected a result name"},
      {"f(int a) -> (Tensor a", "expected ')'"},
  };
  for (const auto& [text, message] : cases) {
    try {
      Schema::parse(text);
      ADD_FAILURE() << "accepted '" << text << "'";
    } catch (const Error& e) {
      EXPECT_THAT(std::string(e.what()), HasSubstr(message));
      EXPECT_THAT(std::string(e.what()), HasSubstr(text));
    }
  }
}

}  // namespace
}  // namespace deepseek
