#include "io/json.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace deepseek::io::json {
namespace {

void read_all(const std::string& text, int max_depth = 127) {
  Reader in(text, max_depth);
  in.skip();
  in.finish();
}

TEST(Json, AcceptsEveryKindOfValue) {
  for (const char* text : {"null",
                           "true",
                           "false",
                           "0",
                           "-0",
                           "-1",
                           "12",
                           "1.5",
                           "1e5",
                           "1E+5",
                           "1e-5",
                           "-1.25e-3",
                           "18446744073709551616",
                           "1e308",
                           "1.7976931348623157e308",
                           "0e999999999999",
                           "1e-99999999999",
                           R"("")",
                           R"("\"\\\/\b\f\n\r\t\u00e9\ud834\udd1e")",
                           "\"\x7f\"",
                           "{}",
                           "[]",
                           " [ 1 , \"a\" , { \"b\" : null } ] \r\n\t"})
    EXPECT_NO_THROW(read_all(text)) << text;
}

TEST(Json, RejectsWhatTheStandardDoesNotAllow) {
  for (const char* text : {"",
                           " ",
                           "nul",
                           "nullx",
                           "True",
                           "01",
                           "-",
                           "+1",
                           "1.",
                           ".5",
                           "1e",
                           "1e+",
                           "0x1",
                           "1 2",
                           "NaN",
                           "Infinity",
                           "'a'",
                           "\"",
                           "\"\n\"",
                           "\"\\x\"",
                           "\"\\u12g4\"",
                           "\"\\ud834\"",
                           "\"\\udd1e\"",
                           "\"\\ud834\\u0041\"",
                           "[",
                           "[1",
                           "[1,]",
                           "[,1]",
                           "[1 2]",
                           "{",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{\"a\":1 \"b\":2}",
                           "/**/1",
                           "[1}",
                           "\xef\xbb\xbf{}",
                           "1e309",
                           "-1e309",
                           "1.8e308"})
    EXPECT_THROW(read_all(text), ParseError) << text;
}

TEST(Json, RejectsDuplicateKeysAtEveryLevel) {
  EXPECT_THROW(read_all(R"({"a":1,"a":2})"), ParseError);
  EXPECT_THROW(read_all(R"({"a":1,"\u0061":2})"), ParseError);  // the same key, spelled differently
  EXPECT_THROW(read_all(R"([{"x":{"b":1,"c":2,"b":3}}])"), ParseError);
  EXPECT_NO_THROW(read_all(R"({"a":{"a":1},"b":{"a":1}})"));
}

TEST(Json, LimitsDepth) {
  auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(read_all(nested(127)));
  EXPECT_THROW(read_all(nested(128)), ParseError);
  EXPECT_THROW(read_all(std::string(10'000'000, '[')), ParseError);
  EXPECT_NO_THROW(read_all("[" + nested(2) + "," + nested(2) + "]", 3));  // leaving a level gives it back
}

TEST(Json, NumbersAreExactUnsignedIntegersOrNothing) {
  auto number = [](const char* text) { return Reader(text).number(); };
  EXPECT_EQ(number("0"), 0u);
  EXPECT_EQ(number("18446744073709551615"), 18446744073709551615u);
  for (const char* text : {"18446744073709551616", "-1", "-0", "1.0", "1e0", "99999999999999999999999"})
    EXPECT_EQ(number(text), std::nullopt) << text;
}

TEST(Json, DecodesStrings) {
  EXPECT_EQ(Reader(R"("\u0041\u00e9\u20ac\ud834\udd1e\u0000z")").string(),
            std::string("A\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\0z", 12));
}

TEST(Json, ReportsTheByte) {
  try {
    read_all(R"({"a": nope})");
    FAIL();
  } catch (const ParseError& e) {
    EXPECT_STREQ(e.what(), "expected null at byte 6");
  }
}

TEST(Json, ObjectsAndArraysArriveInOrder) {
  Reader in(R"({"b":[1,2],"a":[]})");
  std::vector<std::string> keys;
  std::vector<uint64_t> numbers;
  in.object([&](std::string key) {
    keys.push_back(std::move(key));
    in.array([&] { numbers.push_back(*in.number()); });
  });
  in.finish();
  EXPECT_EQ(keys, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(numbers, (std::vector<uint64_t>{1, 2}));
}

TEST(Json, WriterEscapesAndRoundTrips) {
  std::string all;
  for (int c = 0; c < 128; ++c) all.push_back(static_cast<char>(c));
  all += "\xc3\xa9\xf0\x9d\x84\x9e";
  std::string literal;
  append_string(literal, all);
  EXPECT_EQ(Reader(literal).string(), all);
  std::string sample;
  append_string(sample, std::string("\"\\\b\f\n\r\t\x01\x1f\x7f/"));
  EXPECT_EQ(sample, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\"");
}

TEST(Utf8, FindsTheFirstBadByte) {
  constexpr size_t kFine = std::string_view::npos;
  const struct {
    std::string_view text;
    size_t bad;
  } cases[] = {
      {"", kFine},
      {"plain", kFine},
      {"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", kFine},
      {"a\x80", 1},     // a continuation byte alone
      {"\xc0\x80", 0},  // overlong
      {"\xc1\xbf", 0},
      {"\xe0\x9f\xbf", 0},
      {"\xf0\x8f\xbf\xbf", 0},
      {"\xed\xa0\x80", 0},      // a surrogate
      {"\xf4\x90\x80\x80", 0},  // beyond U+10FFFF
      {"\xf5\x80\x80\x80", 0},
      {"ok\xe2\x82", 2},  // cut short
      {"\xf0\x9d\x84", 0},
      {"\xc3", 0},
      {"\xff", 0},
  };
  for (const auto& c : cases) EXPECT_EQ(find_invalid_utf8(c.text), c.bad) << testing::PrintToString(c.text);
}

}  // namespace
}  // namespace deepseek::io::json
