#include <set>

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::HasSubstr;

// Fields of every kind, in schema order.
struct AllFields {
  int64_t i;
  double f;
  bool b;
  Scalar s;
  Dims d;
  Str t;
  Opt<int64_t> oi;
  Opt<Dims> od;
  static constexpr OpInfo info{
      .schema =
          "_test_fields(Tensor input, int i=-4, float f=1e-05, bool b=True, Scalar s=2, int[] d=[3, -1], "
          "str t='mean', int? oi=None, int[]? od=[7]) -> Tensor",
      .doc = "",
      .shown = Shown::kHidden};
  bool operator==(const AllFields&) const = default;
  Tensor body(Inputs in) const { return in[0]; }
};

template <class T>
T parsed(ArgType kind, const std::string& text) {
  T value{};
  set_default(kind, &value, text);
  return value;
}

TEST(OpTable, DefaultsOfEveryKind) {
  EXPECT_EQ(parsed<int64_t>(ArgType::kInt, "-100"), -100);
  EXPECT_EQ(parsed<double>(ArgType::kFloat, "1e-05"), 1e-5);
  EXPECT_EQ(parsed<bool>(ArgType::kBool, "True"), true);
  EXPECT_EQ(parsed<bool>(ArgType::kBool, "False"), false);
  EXPECT_EQ(parsed<Scalar>(ArgType::kScalar, "3"), Scalar(3));
  EXPECT_EQ(parsed<Scalar>(ArgType::kScalar, "0.5"), Scalar(0.5));
  EXPECT_EQ(parsed<Scalar>(ArgType::kScalar, "True"), Scalar(true));
  EXPECT_EQ(parsed<Dims>(ArgType::kDims, "[]"), Dims());
  EXPECT_EQ(parsed<Dims>(ArgType::kDims, "[1, -2, 30]"), (Dims{1, -2, 30}));
  EXPECT_EQ(parsed<Str>(ArgType::kStr, "'mean'"), "mean");
  EXPECT_FALSE(parsed<Opt<int64_t>>(ArgType::kOptInt, "None").has);
  EXPECT_EQ(*parsed<Opt<int64_t>>(ArgType::kOptInt, "9"), 9);
  EXPECT_EQ(*parsed<Opt<double>>(ArgType::kOptFloat, "0.25"), 0.25);
  EXPECT_EQ(*parsed<Opt<bool>>(ArgType::kOptBool, "True"), true);
  EXPECT_EQ(*parsed<Opt<Scalar>>(ArgType::kOptScalar, "2"), Scalar(2));
  EXPECT_FALSE(parsed<Opt<Dims>>(ArgType::kOptDims, "None").has);
  EXPECT_EQ(*parsed<Opt<Dims>>(ArgType::kOptDims, "[4]"), Dims{4});
  EXPECT_EQ(*parsed<Opt<Str>>(ArgType::kOptStr, "'floor'"), "floor");
  EXPECT_FALSE(parsed<Opt<DType>>(ArgType::kOptDType, "None").has);
  Opt<DType> dtype;
  EXPECT_THROW(set_default(ArgType::kOptDType, &dtype, "float32"), Error);
  EXPECT_THROW(set_default(ArgType::kTensor, &dtype, "None"), Error);
}

TEST(OpTable, AStructsFieldsAreReflected) {
  const OpDef& def = op_def<AllFields>();
  EXPECT_EQ(find_op("_test_fields"), &def);
  EXPECT_EQ(def.size, sizeof(AllFields));
  ASSERT_EQ(def.fields.size(), 8u);
  const BoundOp bound = bind_op("_test_fields", {tensor({}, {0})}, {});
  const auto& op = *reinterpret_cast<const AllFields*>(bound.attributes);
  EXPECT_EQ(op.i, -4);
  EXPECT_EQ(op.f, 1e-5);
  EXPECT_TRUE(op.b);
  EXPECT_EQ(op.s, Scalar(2));
  EXPECT_EQ(op.d, (Dims{3, -1}));
  EXPECT_EQ(op.t, "mean");
  EXPECT_FALSE(op.oi.has);
  EXPECT_EQ(*op.od, Dims{7});
  AllFields other = op;
  EXPECT_TRUE(def.equal(&op, &other));
  other.d = {3};
  EXPECT_FALSE(def.equal(&op, &other));
}

std::string registration_error(const char* schema, std::vector<Field> fields) {
  const OpInfo info{.schema = schema, .doc = ""};
  OpDef def;
  def.info = &info;
  def.fields = std::move(fields);
  try {
    register_op(def);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(OpTable, SchemaAndStructMustAgree) {
  const size_t before = op_table().size();
  EXPECT_THAT(registration_error("_test_few(Tensor input, int a, int b) -> Tensor", {{ArgType::kInt, 0}}),
              HasSubstr("op _test_few: the schema has 2 attributes, the struct 1"));
  EXPECT_THAT(registration_error("_test_wrong(Tensor input, int a) -> Tensor", {{ArgType::kFloat, 0}}),
              HasSubstr("argument 'a' and the struct's field have different types"));
  EXPECT_THAT(registration_error("exp(Tensor input) -> Tensor", {}), HasSubstr("op exp is defined twice"));
  EXPECT_THAT(registration_error("_test_text(Tensor input", {}), HasSubstr("expected ','"));
  EXPECT_EQ(op_table().size(), before);
  EXPECT_EQ(find_op("_test_few"), nullptr);
  EXPECT_TRUE(find_op("exp")->info->elementwise);
}

TEST(OpTable, EveryEntryIsWhole) {
  std::set<std::string> names;
  for (const OpDef* def : op_table()) {
    SCOPED_TRACE(def->name());
    EXPECT_TRUE(names.insert(def->schema.name).second);
    EXPECT_EQ(find_op(def->schema.name), def);
    EXPECT_LE(def->size, kMaxOpBytes);
    EXPECT_EQ((def->eval != nullptr) + (def->view != nullptr) + (def->body != nullptr), 1);
    EXPECT_EQ(def->infer != nullptr, def->eval != nullptr);
    EXPECT_TRUE(def->body || def->vjp || !def->info->differentiable);
    if (!def->schema.base.starts_with("_test")) {
      EXPECT_NE(std::string(def->info->doc), "");
    }
    // Every default is a value its field accepts.
    for (const SchemaArg& a : def->schema.args) {
      alignas(16) char field[kMaxOpBytes] = {};
      if (a.kind <= ArgType::kDevice || !a.has_default || a.slot < 0) continue;
      EXPECT_NO_THROW(set_default(a.kind, field, a.default_text)) << a.name;
    }
  }
  EXPECT_GT(names.size(), 200u);
  EXPECT_EQ(find_op("no_such_op"), nullptr);
}

TEST(OpTable, ModeNamesHaveALimit) {
  EXPECT_EQ(Str("none"), "none");
  EXPECT_NE(Str("none"), Str("nonE"));
  EXPECT_THROW(Str(std::string(24, 'x')), ValueError);
}

}  // namespace
}  // namespace deepseek
